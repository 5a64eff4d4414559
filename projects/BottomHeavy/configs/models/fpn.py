"""The ordinary pyramid, in place of SSPNet around the same backbone."""

from detectron2.config import LazyCall as L
from detectron2.modeling.backbone.fpn import FPN, LastLevelMaxPool

# The experiment gives both, those of the detector with SSPNet.
fpn = L(FPN)(
    bottom_up=None,
    in_features="${.bottom_up.out_features}",
    out_channels=None,
    top_block=L(LastLevelMaxPool)(),
)
