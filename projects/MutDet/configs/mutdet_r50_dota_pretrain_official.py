"""MutDet pre-training as the released program does it: two layers each, and all of its quirks."""

from rsd2.config import get_config

dataloader, optimizer, lr_multiplier, train = get_config(
    "MutDet/configs/common/pretrain.py", ("dataloader", "optimizer", "lr_multiplier", "train")
)
model = get_config("MutDet/configs/models/mutdet_r50.py").model

# fine-tuning from it: train.init_inherit.encoder_layers=random and decoder_layers the same
model.detector.encoder.num_layers = model.detector.decoder.num_layers = 2
model.detector.decoder.official_attention_init = True
model.detector.decoder.official_fold_at_45 = True
model.detector.criterion.matcher.official_l1_formats = True
model.detector.official_denoising = True
model.detector.box_normalization = "official_per_axis"
model.enhancement.official_masking = True
model.official_denoising_alignment = True
model.official_query_score = True
model.max_objects = None
