"""Rotated two-stage deformable DETR on Swin-T (arXiv 2103.14030) of timm, the whole model."""

from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec

from rsd2.modeling import TimmBackbone

from .rotated_deformable_detr_r50 import model

model.backbone = L(TimmBackbone)(
    name="swin_tiny_patch4_window7_224",
    out_features=["stride8", "stride16", "stride32"],
    weights=None,
    options={"drop_path_rate": 0.2},
)
model.neck.input_shapes = {
    "stride8": L(ShapeSpec)(channels=192, stride=8),
    "stride16": L(ShapeSpec)(channels=384, stride=16),
    "stride32": L(ShapeSpec)(channels=768, stride=32),
}
