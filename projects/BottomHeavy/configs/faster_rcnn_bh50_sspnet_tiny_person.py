"""Bottom-heavy ResNet-50 with SSPNet on TinyPerson (arXiv 2303.11267).

Start from classification: ``train.init_checkpoint=FILE train.init_strict=false``. BatchNorm keeps
the statistics of that file, so on random weights set ``model.backbone.bottom_up.norm_eval=false``.
"""

from .models.faster_rcnn_bh50_sspnet import model
from .recipes.tiny_person import dataloader, lr_multiplier, optimizer, train
