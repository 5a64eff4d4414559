"""ObjectJEPA on ViT-S/16 on DOTA-v1.0's training tiles, for studies.

train.init_checkpoint=FILE                           goes on from weights
dataloader.train.dataset.names=NAME                  boxes of another registered training split
"""

from .common.pretrain import dataloader, lr_multiplier, optimizer, train
from .models.object_jepa_vit_s16 import model
