"""The ordinary ResNet-50 with an ordinary pyramid on TinyPerson: the baseline of both ideas."""

from detectron2.config import LazyCall as L
from detectron2.modeling.backbone.fpn import FPN, LastLevelMaxPool

from .models.faster_rcnn_bh50_sspnet import model
from .recipes.tiny_person import dataloader, lr_multiplier, optimizer, train

model.backbone.bottom_up.update(
    depths=[3, 4, 6, 3], stage_strides=[1, 2, 2, 2], stem_kernel_size=7, stem_stride=2
)
model.backbone = L(FPN)(
    bottom_up=model.backbone.bottom_up,
    in_features="${.bottom_up.out_features}",
    out_channels=model.backbone.out_channels,
    top_block=L(LastLevelMaxPool)(),
)
model.attention_loss = None
