"""Fine-tuning on OHD-SJTU-S: windows of 600 pixels with 150 of overlap, resized to 800.

train.init_checkpoint=FILE                      of a pre-training, see ../README.md
train.epochs=12                                 or 24, 36
dataloader.train.dataset.fraction=0.1           of the full images and all their windows
dataloader.train.mapper.decoded_cache_dir=DIR   decoded images; windows are cut when loaded
"""

from rsd2.config import get_config

from .common.finetune import lr_multiplier, optimizer, train

dataloader = get_config("common/data/dota.py").dataloader
model = get_config("common/models/rotated_deformable_detr_r50.py").model

dataloader.train.dataset.names = "ohd_sjtu_s_trainval_600_150_virtual"
dataloader.test.dataset.names = "ohd_sjtu_s_test_600_150_virtual"
model.num_classes = 2
