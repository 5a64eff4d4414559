"""Rotated two-stage deformable DETR on ConvNeXt-T (arXiv 2201.03545) of timm, the whole model."""

from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec

from rsd2.modeling import TimmBackbone

from .rotated_deformable_detr_r50 import model

model.backbone = L(TimmBackbone)(
    name="convnext_tiny",
    out_features=["stride8", "stride16", "stride32"],
    weights=None,
    options={"drop_path_rate": 0.2},
)
model.neck.input_shapes = {
    "stride8": L(ShapeSpec)(channels=192, stride=8),
    "stride16": L(ShapeSpec)(channels=384, stride=16),
    "stride32": L(ShapeSpec)(channels=768, stride=32),
}
