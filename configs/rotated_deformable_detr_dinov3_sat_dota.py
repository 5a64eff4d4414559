"""The rotated deformable DETR of ``rotated_deformable_detr_r50_dota.py`` on a satellite ViT-L.

DINOv3 (arXiv 2508.10104) trained on 493 million satellite images; its maps of one stride become a
pyramid. Needs timm and its weights, ``model.backbone.net.weights=FILE``, a state dict of timm's
``vit_large_patch16_dinov3.sat493m``; they have terms of their own.
"""

from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec

from rsd2.modeling import SimplePyramid, TimmBackbone

from .rotated_deformable_detr_r50_dota import dataloader, lr_multiplier, model, optimizer, train

model.backbone = L(SimplePyramid)(
    net=L(TimmBackbone)(
        name="vit_large_patch16_dinov3.sat493m",
        out_features=["last_feat"],
        weights=None,
        options={"drop_path_rate": 0.3},
    ),
    out_channels=256,
    scale_factors=[2.0, 1.0, 0.5],
)
model.neck.input_shapes = {
    "p3": L(ShapeSpec)(channels="${....backbone.out_channels}", stride=8),
    "p4": L(ShapeSpec)(channels="${....backbone.out_channels}", stride=16),
    "p5": L(ShapeSpec)(channels="${....backbone.out_channels}", stride=32),
}
model.neck.in_features = ["p3", "p4", "p5"]
# Those of the satellite images, not ImageNet's.
model.pixel_mean, model.pixel_std = [109.65, 104.805, 75.48], [54.315, 39.78, 36.465]

optimizer.params.update(lr_multipliers={"sampling_offsets": 0.1}, layer_decay=0.8)
