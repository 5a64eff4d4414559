"""The rotated deformable DETR on ViT-S/16: the transformer's pyramid instead of the ResNet's."""

from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec

from rsd2.config import get_config
from rsd2.modeling import SimplePyramid

from .encoders import vit_s16

model = get_config("common/models/rotated_deformable_detr_r50.py").model

vit_s16.update(
    drop_path_rate=0.1,
    window_size=14,
    global_blocks=[2, 5, 8, 11],
    use_relative_positions=True,
    relative_position_size=[64, 64],
    position_grid=[28, 28],
    position_mode="interpolate",
)
model.backbone = L(SimplePyramid)(
    net=vit_s16, out_channels=256, scale_factors=[2.0, 1.0, 0.5], norm="LN"
)
model.neck.in_features = ["p3", "p4", "p5"]
model.neck.input_shapes = {
    "p3": L(ShapeSpec)(channels="${....backbone.out_channels}", stride=8),
    "p4": L(ShapeSpec)(channels="${....backbone.out_channels}", stride=16),
    "p5": L(ShapeSpec)(channels="${....backbone.out_channels}", stride=32),
}
