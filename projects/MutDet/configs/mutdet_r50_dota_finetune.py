"""Fine-tuning on DOTA-v1.0, tiles of 1024 pixels, trained on train, scored on val (full images).

    train.init_checkpoint=FILE                      of a pre-training, see ../README.md
    train.epochs=12                                 or 24; 36 is the paper's main schedule
    dataloader.train.dataset.fraction=0.1           of the full images and all their tiles

The paper trains on train and val and sends Task1.zip of test to the server:
    dataloader.train.dataset.names="[dota_v1.0_train_1024_200,dota_v1.0_val_1024_200]"
"""

from rsd2.config import get_config

from .common.finetune import lr_multiplier, optimizer, train

dataloader = get_config("common/data/dota.py").dataloader
model = get_config("common/models/rotated_deformable_detr_r50.py").model

dataloader.train.dataset.names = "dota_v1.0_train_1024_200"
dataloader.test.dataset.names = "dota_v1.0_val_1024_200"
dataloader.train.mapper.augmentations[0].update(short_edge_length=1024, max_size=1024)
dataloader.test.mapper.augmentations[0].update(short_edge_length=1024, max_size=1024)
