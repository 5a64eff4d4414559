"""What saved configs call by an earlier name: modules that moved, options that were gathered."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

MOVED_MODULES = {
    "rsd2.checkpoint": "rsd2.weights.checkpoint",
    "rsd2.data.box_mapper": "rsd2.data.mappers.box_mapper",
    "rsd2.data.box_tiling": "rsd2.data.windows.box_tiling",
    "rsd2.data.classification_mapper": "rsd2.data.mappers.classification_mapper",
    "rsd2.data.clip_mapper": "rsd2.data.mappers.clip_mapper",
    "rsd2.data.coco_format": "rsd2.data.formats.coco",
    "rsd2.data.dataset_mapper": "rsd2.data.mappers.dataset_mapper",
    "rsd2.data.dior_format": "rsd2.data.formats.dior",
    "rsd2.data.dota_format": "rsd2.data.formats.dota",
    "rsd2.data.image_io": "rsd2.io.image_io",
    "rsd2.data.label_report": "rsd2.data.formats.label_report",
    "rsd2.data.mot_format": "rsd2.data.formats.mot",
    "rsd2.data.photometric": "rsd2.data.mappers.photometric",
    "rsd2.data.pseudo_labels": "rsd2.data.formats.pseudo_labels",
    "rsd2.data.scale_match": "rsd2.data.mappers.scale_match",
    "rsd2.data.tile_index": "rsd2.data.windows.tile_index",
    "rsd2.data.tile_writer": "rsd2.data.windows.tile_writer",
    "rsd2.data.tiling": "rsd2.data.windows.tiling",
    "rsd2.data.transforms": "rsd2.data.mappers.transforms",
    "rsd2.data.video_clips": "rsd2.data.windows.video_clips",
    "rsd2.data.video_drawing": "rsd2.data.drawing.videos",
    "rsd2.data.visualization": "rsd2.data.drawing.boxes",
    "rsd2.data.worker_pool": "rsd2.io.worker_pool",
    "rsd2.evaluation.aitod_evaluation": "rsd2.evaluation.aitod",
    "rsd2.evaluation.aitod_scoring": "rsd2.evaluation.scoring.aitod",
    "rsd2.evaluation.average_precision": "rsd2.evaluation.scoring.average_precision",
    "rsd2.evaluation.box_evaluation": "rsd2.evaluation.evaluator",
    "rsd2.evaluation.box_matching": "rsd2.evaluation.matching.boxes",
    "rsd2.evaluation.box_records": "rsd2.evaluation.records",
    "rsd2.evaluation.clip_detector": "rsd2.inference.clip_detector",
    "rsd2.evaluation.clip_windows": "rsd2.inference.clip_windows",
    "rsd2.evaluation.coco_results": "rsd2.evaluation.files.coco_results",
    "rsd2.evaluation.dota_evaluation": "rsd2.evaluation.dota",
    "rsd2.evaluation.dota_scoring": "rsd2.evaluation.scoring.dota",
    "rsd2.evaluation.drawing": "rsd2.inference.drawing",
    "rsd2.evaluation.drone_crowd_evaluation": "rsd2.evaluation.drone_crowd",
    "rsd2.evaluation.image_detector": "rsd2.inference.image_detector",
    "rsd2.evaluation.moving_object_evaluation": "rsd2.evaluation.moving_object",
    "rsd2.evaluation.moving_object_scoring": "rsd2.evaluation.scoring.moving_object",
    "rsd2.evaluation.point_scoring": "rsd2.evaluation.scoring.points",
    "rsd2.evaluation.polygon_matching": "rsd2.evaluation.matching.polygons",
    "rsd2.evaluation.prediction_files": "rsd2.inference.prediction_files",
    "rsd2.evaluation.prediction_inputs": "rsd2.inference.prediction_inputs",
    "rsd2.evaluation.serial_torch": "rsd2.evaluation.matching.serial_torch",
    "rsd2.evaluation.sliding_window": "rsd2.inference.sliding_window",
    "rsd2.evaluation.task1_files": "rsd2.evaluation.files.task1",
    "rsd2.evaluation.tile_merging": "rsd2.evaluation.merging",
    "rsd2.evaluation.tile_records": "rsd2.evaluation.records",
    "rsd2.evaluation.tiny_evaluation": "rsd2.evaluation.tiny",
    "rsd2.evaluation.tiny_scoring": "rsd2.evaluation.scoring.tiny",
    "rsd2.evaluation.video_frames": "rsd2.inference.video_frames",
    "rsd2.evaluation.video_prediction": "rsd2.inference.video_prediction",
    "rsd2.inheritance": "rsd2.weights.inheritance",
    "rsd2.modeling.attention_supervision": "rsd2.projects.bottom_heavy.attention_supervision",
    "rsd2.modeling.bottom_heavy_resnet": "rsd2.modeling.backbones.bottom_heavy_resnet",
    "rsd2.modeling.simple_pyramid": "rsd2.modeling.backbones.simple_pyramid",
    "rsd2.modeling.small_resnet": "rsd2.modeling.backbones.small_resnet",
    "rsd2.modeling.sspnet": "rsd2.projects.bottom_heavy.sspnet",
    "rsd2.modeling.vit": "rsd2.modeling.backbones.vit",
    "rsd2.tensor_files": "rsd2.weights.tensor_files",
}
"""Earlier dotted name of a module -> its name now. Every move adds a row; none is removed."""

MOVED_NAMES = {
    "rsd2.modeling.AttentionLoss": "rsd2.projects.bottom_heavy.attention_supervision.AttentionLoss",
    "rsd2.modeling.SSPNet": "rsd2.projects.bottom_heavy.sspnet.SSPNet",
    "rsd2.projects.bottom_heavy.ClassificationEvaluator": "rsd2.evaluation.ClassificationEvaluator",
    "rsd2.projects.bottom_heavy.ImageClassifier": "rsd2.modeling.ImageClassifier",
}
"""The same for classes and functions that a package re-exported: configs save the shorter name."""

_DETECTOR = "rsd2.modeling.DetectorQuirks"
_MUTDET = "rsd2.projects.mutdet.quirks.MutDetQuirks"
_ATTENTION = "rsd2.projects.bottom_heavy.attention_supervision.AttentionQuirks"

GATHERED_OPTIONS = {
    "box_normalization": (_DETECTOR, ("boxes_per_axis",)),
    "official_attention_init": (_DETECTOR, ("random_sampling_init",)),
    "official_centerness": (_ATTENTION, ("short_far_sides",)),
    "official_denoising": (_DETECTOR, ("multiplied_angle_noise", "trained_empty_slots")),
    "official_denoising_alignment": (_MUTDET, ("first_denoising_rows",)),
    "official_fold_at_45": (_DETECTOR, ("unswapped_at_45",)),
    "official_l1_formats": (_DETECTOR, ("mixed_l1_formats",)),
    "official_masking": (_MUTDET, ("zeroed_rim",)),
    "official_query_score": (_MUTDET, ("raw_query_score",)),
    "official_ranges": (_ATTENTION, ("strict_ranges",)),
}
"""Earlier option of a target -> what ``quirks`` is today, and the fields that it set there."""


def _any_of(names: Iterable[str]) -> str:
    # The longest first, so that a module wins over the package that it lay in.
    return "|".join(map(re.escape, sorted(names, key=len, reverse=True)))


# A module is only renamed where something of it is named: rsd2.modeling.small_resnet is also the
# name of a function, which the package still offers.
_MODULES = re.compile(rf"(?<![\w.])({_any_of(MOVED_MODULES)})(?=\.)")
_NAMES = re.compile(rf"(?<![\w.])({_any_of(MOVED_NAMES)})(?![\w.])")


def use_current_names(text: str) -> str:
    """Replace the earlier names of modules in the text of a saved config.

    Args:
        text: of a YAML file that :func:`rsd2.config.save_config` wrote, at any time.

    Returns:
        The text with the names of today; all else as it was.
    """
    text = _NAMES.sub(lambda match: MOVED_NAMES[match[1]], text)
    return _MODULES.sub(lambda match: MOVED_MODULES[match[1]], text)


def gather_options(saved: Any) -> Any:
    """Put the options of :data:`GATHERED_OPTIONS` into the argument ``quirks`` of their target.

    Args:
        saved: content of a YAML file that :func:`rsd2.config.save_config` wrote, at any time.

    Returns:
        The content with the arguments of today; all else as it was.
    """
    if isinstance(saved, list):
        return [gather_options(item) for item in saved]
    if not isinstance(saved, dict):
        return saved

    gathered: dict[str, Any] = {}
    result = {}
    for key, value in saved.items():
        if "_target_" in saved and key in GATHERED_OPTIONS:
            target, fields = GATHERED_OPTIONS[key]
            # One of them was a choice of two names.
            is_on = value in (True, "official_per_axis")
            gathered |= {"_target_": target, **dict.fromkeys(fields, is_on)}
        else:
            result[key] = gather_options(value)
    return {**result, "quirks": gathered} if gathered else result
