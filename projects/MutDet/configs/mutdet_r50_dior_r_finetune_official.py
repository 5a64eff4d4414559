"""Fine-tuning on DIOR-R as the released program does it, with all quirks of its detector.

Besides `mutdet_r50_dior_r_finetune.py`, whose detector adds noise to the angles of denoising boxes
and neither attends to nor trains denoising slots without an object:
    angles are multiplied by noise (next to none), and empty slots are trained as background.

train.init_checkpoint=FILE                      of a pre-training, see ../README.md
"""

from rsd2.config import get_config

from .common.finetune import lr_multiplier, optimizer, train
from .common.official import detector_quirks as _detector_quirks

dataloader = get_config("common/data/dota.py").dataloader
model = get_config("common/models/rotated_deformable_detr_r50.py").model

dataloader.train.dataset.names = "dior_r_trainval"
dataloader.test.dataset.names = "dior_r_test"
model.num_classes = 20
model.quirks = _detector_quirks
