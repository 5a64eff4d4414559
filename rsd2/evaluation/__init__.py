"""Evaluation: DOTA's protocol on merged full images.

The scoring itself needs neither Detectron2 nor a GPU; ``DotaEvaluator``, which does need
Detectron2, is imported when it is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .average_precision import average_precision, precision_recall
from .dota_scoring import (
    COCO_IOU_THRESHOLDS,
    DIFFICULT_POLICIES,
    Detections,
    DotaScores,
    GroundTruth,
    score_detections,
)
from .task1_files import read_task1, score_task1, write_task1_zip
from .tile_merging import merge_tile_detections, shift_to_full_image

if TYPE_CHECKING:
    from .dota_evaluation import DotaEvaluator

__all__ = [
    "COCO_IOU_THRESHOLDS",
    "DIFFICULT_POLICIES",
    "Detections",
    "DotaEvaluator",
    "DotaScores",
    "GroundTruth",
    "average_precision",
    "merge_tile_detections",
    "precision_recall",
    "read_task1",
    "score_detections",
    "score_task1",
    "shift_to_full_image",
    "write_task1_zip",
]


def __getattr__(name: str) -> object:
    if name == "DotaEvaluator":
        from .dota_evaluation import DotaEvaluator

        return DotaEvaluator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
