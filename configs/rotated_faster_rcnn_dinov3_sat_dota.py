"""The rotated Faster R-CNN of ``rotated_faster_rcnn_r50_dota.py`` on a satellite ViT-L.

Weights and pixels are those of ``rotated_deformable_detr_dinov3_sat_dota.py``.
"""

from detectron2.config import LazyCall as L
from detectron2.modeling.backbone.fpn import LastLevelMaxPool

from rsd2.config import get_config
from rsd2.modeling import SimplePyramid, TimmBackbone

from .rotated_faster_rcnn_r50_dota import dataloader, lr_multiplier, model, train

model.backbone = L(SimplePyramid)(
    net=L(TimmBackbone)(
        name="vit_large_patch16_dinov3.sat493m",
        out_features=["last_feat"],
        weights=None,
        options={"drop_path_rate": 0.3},
    ),
    out_channels=256,
    scale_factors=[4.0, 2.0, 1.0, 0.5],
    top_block=L(LastLevelMaxPool)(),
)
# Those of the satellite images, not ImageNet's.
model.pixel_mean, model.pixel_std = [109.65, 104.805, 75.48], [54.315, 39.78, 36.465]

# A transformer does not learn from the SGD of the ResNet.
optimizer = get_config("common/optim.py").AdamW
optimizer.params.update(lr_multipliers={}, layer_decay=0.8)
