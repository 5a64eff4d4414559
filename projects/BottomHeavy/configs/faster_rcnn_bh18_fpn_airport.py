"""Bottom-heavy ResNet-18 with an ordinary pyramid on GDIT's airports."""

from rsd2.config import get_config

from .models.faster_rcnn_bh18_sspnet import model
from .models.fpn import fpn as _fpn
from .recipes.synthetic_tiny import lr_multiplier, optimizer, train

dataloader = get_config("common/data/airport.py").dataloader

_fpn.update(bottom_up=model.backbone.bottom_up, out_channels=model.backbone.out_channels)
model.backbone = _fpn
model.attention_loss = None
model.roi_heads.num_classes = 1

train.max_iter = 2400
train.eval_period = 0
train.channels_last = True
train.checkpointer.period = 100
