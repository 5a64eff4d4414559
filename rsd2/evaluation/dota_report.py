"""Turn DOTA scores into a result dict, a table and a record that says what was computed.

Shapes: T thresholds, C classes.
"""

from __future__ import annotations

import math
from collections import OrderedDict

import numpy as np
from tabulate import tabulate

from .scoring.dota import COCO_IOU_THRESHOLDS, DIFFICULT_POLICIES, DotaScores


def summarize(scores: DotaScores, class_names: tuple[str, ...]) -> OrderedDict[str, float]:
    """Make the result dict that Detectron2 prints and logs.

    Args:
        scores: result of :func:`score_detections`.
        class_names: C names.

    Returns:
        Percentages 0-100: ``AP`` (mean over IoU 0.50, 0.55 ... 0.95), ``AP50``, ``AP75``, with
        another list of thresholds also ``AP<100 t>`` of each, and ``AP50-<class>``. A value is
        ``nan`` where its threshold was not computed or no class has ground truth.
    """
    means = dict(zip(scores.iou_thresholds, (100 * scores.mean_ap()).tolist()))
    nan = float("nan")
    averaged = [means.get(threshold, nan) for threshold in COCO_IOU_THRESHOLDS]
    result = OrderedDict(AP=float(np.mean(averaged)))
    result["AP50"], result["AP75"] = means.get(0.5, nan), means.get(0.75, nan)
    if scores.iou_thresholds != COCO_IOU_THRESHOLDS:
        for threshold, value in means.items():
            result[f"AP{100 * threshold:g}"] = value
    per_class = _row(scores, 0.5)
    for name, value in zip(class_names, per_class.tolist()):
        result[f"AP50-{name}"] = value
    return result


def format_table(scores: DotaScores, class_names: tuple[str, ...]) -> str:
    """Lay out the scores of every class and their mean.

    Args:
        scores: result of :func:`score_detections`.
        class_names: C names.

    Returns:
        A table with the objects that count, those ignored, detections, and the percentages
        recall and AP at 0.5, AP at 0.75, and AP averaged over all thresholds computed.
    """
    columns = [_row(scores, 0.5, "recall"), _row(scores, 0.5), _row(scores, 0.75)]
    columns.append(100 * scores.ap.mean(axis=0))
    counts = [scores.num_counted, scores.num_ignored, scores.num_detections]
    rows = [
        [name, *(int(count[label]) for count in counts), *(column[label] for column in columns)]
        for label, name in enumerate(class_names)
    ]
    defined = scores.num_counted > 0
    means = [float(c[defined].mean()) if defined.any() else math.nan for c in columns]
    rows.append(["mean / total", *(int(count.sum()) for count in counts), *means])
    spread = "AP" if scores.iou_thresholds == COCO_IOU_THRESHOLDS else "AP (all t)"
    headers = ["class", "objects", "ignored", "detections", "recall50", "AP50", "AP75", spread]
    return tabulate(rows, headers=headers, floatfmt=".2f", tablefmt="pipe")


def describe_protocol(
    scores: DotaScores, *, ap_method: str, difficult_policy: str, **others: object
) -> OrderedDict[str, object]:
    """State how the scores were computed.

    Args:
        scores: result of :func:`score_detections`.
        ap_method: value that it was called with.
        difficult_policy: value that it was called with.
        **others: more entries, such as the merging threshold and the score floor.

    Returns:
        The protocol, ready for JSON.
    """
    protocol: OrderedDict[str, object] = OrderedDict(
        name="DOTA Task 1 (oriented boxes)",
        iou_rule="polygon IoU > t against the ground-truth quadrilaterals, double precision",
        matching="by decreasing score, each detection takes its best-overlapping object; "
        "equal scores by image, window and output order",
        iou_thresholds=list(scores.iou_thresholds),
        ap_method={"voc07": "voc07 (11 points)", "area": "area (all points)"}[ap_method],
        mean="over the classes that have an object that counts",
        difficult_policy=difficult_policy,
        difficulty_labels_that_count=list(DIFFICULT_POLICIES[difficult_policy]),
    )
    protocol.update(others)
    return protocol


def per_class_record(scores: DotaScores, class_names: tuple[str, ...]) -> list[dict]:
    """List everything known about each class.

    Args:
        scores: result of :func:`score_detections`.
        class_names: C names.

    Returns:
        C dicts with counts and, in percent, AP and recall at every threshold.
    """
    return [
        {
            "class": name,
            "objects": int(scores.num_counted[label]),
            "ignored_objects": int(scores.num_ignored[label]),
            "detections": int(scores.num_detections[label]),
            "ap": (100 * scores.ap[:, label]).tolist(),
            "recall": (100 * scores.recall[:, label]).tolist(),
        }
        for label, name in enumerate(class_names)
    ]


def _row(scores: DotaScores, threshold: float, what: str = "ap") -> np.ndarray:
    """Percentages (C,) at one threshold, ``nan`` if it was not computed."""
    values = getattr(scores, what)
    if threshold not in scores.iou_thresholds:
        return np.full(values.shape[1], np.nan)
    return 100 * values[scores.iou_thresholds.index(threshold)]
