"""Evaluation: the protocols of DOTA, COCO, TinyPerson, AI-TOD, SODA-A, video and DroneCrowd.

The scoring itself needs neither Detectron2 nor a GPU; the evaluators, which do need Detectron2, are
imported at their first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from .files.task1 import read_task1 as read_task1
from .files.task1 import score_task1 as score_task1
from .files.task1 import write_task1_zip as write_task1_zip
from .matching.boxes import BoxDetections as BoxDetections
from .matching.boxes import BoxTruth as BoxTruth
from .merging import merge_tile_detections as merge_tile_detections
from .merging import shift_to_full_image as shift_to_full_image
from .records import BoxMerging as BoxMerging
from .scoring.aitod import AitodScores as AitodScores
from .scoring.aitod import score_aitod as score_aitod
from .scoring.average_precision import average_precision as average_precision
from .scoring.average_precision import precision_recall as precision_recall
from .scoring.dota import COCO_IOU_THRESHOLDS as COCO_IOU_THRESHOLDS
from .scoring.dota import DIFFICULT_POLICIES as DIFFICULT_POLICIES
from .scoring.dota import Detections as Detections
from .scoring.dota import DotaScores as DotaScores
from .scoring.dota import GroundTruth as GroundTruth
from .scoring.dota import score_detections as score_detections
from .scoring.moving_object import MOVING_OBJECT_PROTOCOLS as MOVING_OBJECT_PROTOCOLS
from .scoring.moving_object import MovingObjectProtocol as MovingObjectProtocol
from .scoring.moving_object import MovingObjectScores as MovingObjectScores
from .scoring.moving_object import score_moving_objects as score_moving_objects
from .scoring.points import LOCALIZATION_DISTANCES as LOCALIZATION_DISTANCES
from .scoring.points import score_points as score_points
from .scoring.soda import SodaScores as SodaScores
from .scoring.soda import score_soda as score_soda
from .scoring.tiny import TinyProtocol as TinyProtocol
from .scoring.tiny import TinyScores as TinyScores
from .scoring.tiny import score_miss_rate as score_miss_rate
from .scoring.tiny import score_tiny as score_tiny

if TYPE_CHECKING:
    from .aitod import AitodEvaluator as AitodEvaluator
    from .classification import ClassificationEvaluator as ClassificationEvaluator
    from .coco import CocoEvaluator as CocoEvaluator
    from .dota import DotaEvaluator as DotaEvaluator
    from .drone_crowd import DroneCrowdEvaluator as DroneCrowdEvaluator
    from .moving_object import MovingObjectEvaluator as MovingObjectEvaluator
    from .soda import SodaEvaluator as SodaEvaluator
    from .tiny import TinyEvaluator as TinyEvaluator

_EVALUATORS = {
    "AitodEvaluator": "aitod",
    "ClassificationEvaluator": "classification",
    "CocoEvaluator": "coco",
    "DotaEvaluator": "dota",
    "DroneCrowdEvaluator": "drone_crowd",
    "MovingObjectEvaluator": "moving_object",
    "SodaEvaluator": "soda",
    "TinyEvaluator": "tiny",
}


def __getattr__(name: str) -> object:
    if name in _EVALUATORS:
        return getattr(import_module(f"{__name__}.{_EVALUATORS[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
