"""EfficientNet-Lite0 with ImageNet weights, as the backbone of small detectors.

Source: "EfficientNet" (arXiv 1905.11946), its Lite variant. ``rsd2 get-weights efficientnet_lite0``
puts the file where ``weights`` expects it. Pixels are RGB, (x - 127) / 128.
"""

from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec

from rsd2.modeling import TimmBackbone

backbone = L(TimmBackbone)(
    name="tf_efficientnet_lite0",
    out_features=["stride8", "stride16", "stride32"],
    weights="weights/tf_efficientnet_lite0.pth",
    # Batches of a few images have no statistics of their own worth having.
    frozen_norm=True,
    # The first two maps show edges and corners, which are the same everywhere.
    freeze_at=2,
)
input_shapes = {
    "stride8": L(ShapeSpec)(channels=40, stride=8),
    "stride16": L(ShapeSpec)(channels=112, stride=16),
    "stride32": L(ShapeSpec)(channels=320, stride=32),
}
pixels = {"mean": [127.0, 127.0, 127.0], "std": [128.0, 128.0, 128.0]}
