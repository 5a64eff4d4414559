"""rsd2: object detection in overhead imagery on Detectron2.

What most programs need is here: ``from rsd2 import load_detector``. Each name is imported when it
is first asked for, so that ``import rsd2`` itself loads neither torch nor Detectron2.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rsd2.commands.detector import load_detector as load_detector
    from rsd2.config import get_config as get_config
    from rsd2.config import load_config as load_config
    from rsd2.data.datasets.dota import register_dota_instances as register_dota_instances
    from rsd2.data.datasets.dota_tiles import register_dota_tiles as register_dota_tiles
    from rsd2.data.mappers.dataset_mapper import RotatedDatasetMapper as RotatedDatasetMapper
    from rsd2.evaluation import DotaEvaluator as DotaEvaluator
    from rsd2.ops import box_iou_rotated as box_iou_rotated
    from rsd2.ops import nms_rotated as nms_rotated

__version__ = "0.1.0"

_HOMES = {
    "DotaEvaluator": "rsd2.evaluation",
    "RotatedDatasetMapper": "rsd2.data.mappers.dataset_mapper",
    "box_iou_rotated": "rsd2.ops",
    "get_config": "rsd2.config",
    "load_config": "rsd2.config",
    "load_detector": "rsd2.commands.detector",
    "nms_rotated": "rsd2.ops",
    "register_dota_instances": "rsd2.data.datasets.dota",
    "register_dota_tiles": "rsd2.data.datasets.dota_tiles",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)

    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
