"""ARS-DETR with denoising on the bottom-heavy ResNet-50, on DOTA-v1.0; all else as with ResNet-50.

Start from classification: ``train.init_checkpoint=FILE train.init_strict=false``.
"""

from detectron2.config import LazyCall as L

from rsd2.config import get_config
from rsd2.modeling import BottomHeavyResNet

_r50 = get_config("rotated_deformable_detr_r50_dota.py")
dataloader = _r50.dataloader
model = _r50.model
optimizer = _r50.optimizer
lr_multiplier = _r50.lr_multiplier
train = _r50.train

model.backbone = L(BottomHeavyResNet)(
    norm="FrozenBN", out_features=["res3", "res4", "res5"], freeze_at=2
)
