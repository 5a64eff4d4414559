"""MICML on DLA-34, the whole model.

DSFNet is ``model.dynamic.motion=None``, its static variant ``model.dynamic=None``, its dynamic one
DSFNet with ``model.static=None``.
"""

from detectron2.config import LazyCall as L

from rsd2.projects.micml.dla import StaticBranch
from rsd2.projects.micml.dynamic import DynamicBranch
from rsd2.projects.micml.micml import MICML
from rsd2.projects.micml.motion import MotionModule

model = L(MICML)(
    static=L(StaticBranch)(channels=[16, 32, 64, 128, 256], num_levels=3, official_layout=False),
    dynamic=L(DynamicBranch)(
        channels=[16, 32, 64],
        motion=L(MotionModule)(
            channels="${..channels.2}",
            pool_size=64,
            num_layers=3,
            num_frames=5,
            recompute_scans=False,
            prior="learned",
            shuffled_scan=False,
        ),
    ),
    num_classes=1,
    head_width=128,
    motion_at_eval=False,
    radius_rule="official",
    heatmap_weight=1.0,
    size_weight=0.1,
    offset_weight=1.0,
    top_k=100,
    score_floor=0.0,
    soft_nms=True,
    pixel_mean=[127.4, 127.4, 127.4],
    pixel_std=[21.05, 21.05, 21.05],
)
