"""The pyramid of plain backbones: every level is made from their single map.

Source: ViTDet (arXiv 2203.16527), section 3: upsampled by transposed convolutions, downsampled by
pooling, each level followed by a 1x1 and a 3x3 convolution with LayerNorm.
"""

from __future__ import annotations

from collections.abc import Sequence

from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from detectron2.modeling.backbone.vit import SimpleFeaturePyramid
from torch import nn


@BACKBONE_REGISTRY.register()
class SimplePyramid(SimpleFeaturePyramid):
    """Detectron2's pyramid, which also names the number that must divide the sides of images.

    Detectron2's own does not, so that its detectors would pad images to no multiple at
    all, not even of the patches.

    Args:
        net: plain backbone.
        in_feature: name of its map.
        out_channels: channels of every level.
        scale_factors: factors of the map's size, in falling order: 4, 2, 1 or 0.5; the levels
            are called ``p2``, ``p3``, ... by the logarithm of their strides.
        top_block: adds coarser levels, like ``LastLevelMaxPool`` to a ``p5``; None adds none.
        norm: norm of every level, see `detectron2.layers.get_norm`.
        square_pad: side of the square that images are padded to, pixels; 0 pads to no square.
    """

    def __init__(
        self,
        net: Backbone,
        in_feature: str = "last_feat",
        *,
        out_channels: int = 256,
        scale_factors: Sequence[float] = (4.0, 2.0, 1.0, 0.5),
        top_block: nn.Module | None = None,
        norm: str = "LN",
        square_pad: int = 0,
    ) -> None:
        super().__init__(
            net,
            in_feature,
            out_channels,
            list(scale_factors),
            top_block=top_block,
            norm=norm,
            square_pad=square_pad,
        )

    @property
    def size_divisibility(self) -> int:
        """The coarsest stride made from the map itself; the levels of ``top_block`` need none."""
        return max(self._size_divisibility, self.net.size_divisibility)

    @property
    def padding_constraints(self) -> dict[str, int]:
        """``square_size`` if there is one, and ``size_divisibility``."""
        return {"size_divisibility": self.size_divisibility, "square_size": self._square_pad}
