"""Fine-tuning on DIOR-R, 800 pixels, trained on trainval, scored on test (VOC07 AP).

train.init_checkpoint=FILE                      of a pre-training, see ../README.md
train.epochs=12                                 or 24; 36 is the paper's main schedule
dataloader.train.dataset.fraction=0.1           or 0.25, 0.5; nested, by split_seed
"""

from rsd2.config import get_config

from .common.finetune import lr_multiplier, optimizer, train

dataloader = get_config("common/data/dota.py").dataloader
model = get_config("common/models/rotated_deformable_detr_r50.py").model

dataloader.train.dataset.names = "dior_r_trainval"
dataloader.test.dataset.names = "dior_r_test"
model.num_classes = 20
