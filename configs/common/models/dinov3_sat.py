"""DINOv3's ViT-L of 493 million satellite images, as the pyramid below a detector.

Source: DINOv3 (arXiv 2508.10104). Needs timm and its weights, a state dict of timm's
``vit_large_patch16_dinov3.sat493m``, which have terms of their own. Its maps of one stride become a
pyramid; a model sets ``scale_factors``. ``pixels`` are those of the satellite images.
"""

from detectron2.config import LazyCall as L

from rsd2.modeling import SimplePyramid, TimmBackbone

backbone = L(SimplePyramid)(
    net=L(TimmBackbone)(
        name="vit_large_patch16_dinov3.sat493m",
        out_features=["last_feat"],
        weights=None,
        options={"drop_path_rate": 0.3},
    ),
    out_channels=256,
)
pixels = {"mean": [109.65, 104.805, 75.48], "std": [54.315, 39.78, 36.465]}
