"""Evaluation: the protocols of DOTA, TinyPerson, AI-TOD, satellite video and DroneCrowd.

The scoring itself needs neither Detectron2 nor a GPU; the evaluators, which do need Detectron2, are
imported when they are first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from .files.task1 import read_task1, score_task1, write_task1_zip
from .matching.boxes import BoxDetections, BoxTruth
from .merging import merge_tile_detections, shift_to_full_image
from .records import BoxMerging
from .scoring.aitod import AitodScores, score_aitod
from .scoring.average_precision import average_precision, precision_recall
from .scoring.dota import (
    COCO_IOU_THRESHOLDS,
    DIFFICULT_POLICIES,
    Detections,
    DotaScores,
    GroundTruth,
    score_detections,
)
from .scoring.moving_object import (
    MOVING_OBJECT_PROTOCOLS,
    MovingObjectProtocol,
    MovingObjectScores,
    score_moving_objects,
)
from .scoring.points import LOCALIZATION_DISTANCES, score_points
from .scoring.tiny import TinyProtocol, TinyScores, score_miss_rate, score_tiny

if TYPE_CHECKING:
    from .aitod import AitodEvaluator
    from .dota import DotaEvaluator
    from .drone_crowd import DroneCrowdEvaluator
    from .moving_object import MovingObjectEvaluator
    from .tiny import TinyEvaluator

_EVALUATORS = {
    "AitodEvaluator": "aitod",
    "DotaEvaluator": "dota",
    "DroneCrowdEvaluator": "drone_crowd",
    "MovingObjectEvaluator": "moving_object",
    "TinyEvaluator": "tiny",
}

__all__ = [
    "COCO_IOU_THRESHOLDS",
    "DIFFICULT_POLICIES",
    "LOCALIZATION_DISTANCES",
    "MOVING_OBJECT_PROTOCOLS",
    "AitodEvaluator",
    "AitodScores",
    "BoxDetections",
    "BoxMerging",
    "BoxTruth",
    "Detections",
    "DotaEvaluator",
    "DotaScores",
    "DroneCrowdEvaluator",
    "GroundTruth",
    "MovingObjectEvaluator",
    "MovingObjectProtocol",
    "MovingObjectScores",
    "TinyEvaluator",
    "TinyProtocol",
    "TinyScores",
    "average_precision",
    "merge_tile_detections",
    "precision_recall",
    "read_task1",
    "score_aitod",
    "score_detections",
    "score_miss_rate",
    "score_moving_objects",
    "score_points",
    "score_task1",
    "score_tiny",
    "shift_to_full_image",
    "write_task1_zip",
]


def __getattr__(name: str) -> object:
    if name in _EVALUATORS:
        return getattr(import_module(f"{__name__}.{_EVALUATORS[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
