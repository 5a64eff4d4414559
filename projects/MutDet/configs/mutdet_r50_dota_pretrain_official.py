"""MutDet pre-training as the released program does it: two layers each, and all of its quirks."""

from detectron2.config import LazyCall as L

from rsd2.projects.mutdet.quirks import MutDetQuirks

from .common.official import detector_quirks as _detector_quirks
from .common.pretrain import dataloader, lr_multiplier, optimizer, train
from .models.mutdet_r50 import model

# fine-tuning from it: train.init_inherit.encoder_layers=random and decoder_layers the same
model.detector.encoder.num_layers = model.detector.decoder.num_layers = 2
model.detector.quirks = _detector_quirks
model.quirks = L(MutDetQuirks)(first_denoising_rows=True, raw_query_score=True, zeroed_rim=True)
# The first 1000 boxes of an image, without those of less than 2 pixels on a tile of 800 pixels.
model.max_objects, model.choice = 1000, "first"
dataloader.train.mapper.min_side = 2 * 1024 / 800
