"""Detectron2 evaluator of DroneCrowd's localisation task."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .evaluator import BoxEvaluator, Evaluation, count_objects
from .matching.boxes import BoxDetections, BoxTruth
from .scoring.points import LOCALIZATION_DISTANCES, score_points

_logger = logging.getLogger(__name__)

HEADLINE_DISTANCES = (10, 15, 20)


class DroneCrowdEvaluator(BoxEvaluator):
    """L-mAP over distances of 1 to 25 px, and L-AP at 10, 15 and 20 px.

    Source: the toolkit of DroneCrowd. A detection and an object are the centres of their boxes.
    """

    metrics_file = "metrics_drone_crowd.json"

    def __init__(
        self,
        dataset_name: str,
        *,
        output_dir: str | Path | None = None,
        distances: Sequence[int] = LOCALIZATION_DISTANCES,
        max_detections: int | None = None,
        train_dataset_names: Sequence[str] = (),
        distributed: bool = True,
        format_only: bool = False,
    ) -> None:
        """Check the protocol; the labels are read by :meth:`reset`.

        Args:
            dataset_name: registered dataset that the model is run on.
            output_dir: folder for ``metrics_drone_crowd.json`` and ``coco_instances_results.json``.
            distances: distances over which L-mAP is the mean, pixels, > 0.
            max_detections: most detections of one class in one frame; None counts all.
            train_dataset_names: datasets the model was trained on.
            distributed: whether to gather the outputs of all processes.
            format_only: write the detections and score nothing.

        Raises:
            ValueError: the protocol is impossible.
            OSError: the output folder cannot be written.
        """
        super().__init__(
            dataset_name,
            output_dir=output_dir,
            max_detections=max_detections,
            train_dataset_names=train_dataset_names,
            distributed=distributed,
            format_only=format_only,
        )

        if not len(distances) or min(distances) <= 0:
            raise ValueError(f"distances must be positive, got {distances}")
        self._distances = tuple(distances)

    def score(self, truth: BoxTruth, detections: BoxDetections) -> Evaluation:
        """Score the detections.

        Args:
            truth: labels of all frames.
            detections: detections on them.

        Returns:
            ``L_mAP``, ``L_AP10``, ``L_AP15``, ``L_AP20`` in percent, means over the classes with
            objects.
        """
        # A dict keeps the order and computes a distance of both lists once.
        wanted = dict.fromkeys((*self._distances, *HEADLINE_DISTANCES))
        values = score_points(truth, detections, list(wanted), self.max_detections)

        has_objects = np.isfinite(values).all(axis=0)
        means = np.full(len(values), np.nan)
        if has_objects.any():
            means = 100 * values[:, has_objects].mean(axis=1)

        by_distance = dict(zip(wanted, means.tolist()))
        result = OrderedDict(L_mAP=float(np.mean([by_distance[d] for d in self._distances])))
        result.update({f"L_AP{d}": by_distance[d] for d in HEADLINE_DISTANCES})
        _logger.info("Scores: %s", ", ".join(f"{k} {v:.2f}" for k, v in result.items()))

        protocol = {
            "name": "DroneCrowd localisation",
            "matching": "greedy by score, nearest free centre, distance <= d, all frames pooled",
            "ap_method": "area under the curve (VOC 2010)",
            "distances_px": list(self._distances),
            "ap_by_distance": {f"{d:g}": round(v, 4) for d, v in by_distance.items()},
            "max_detections_per_image_and_class": self.max_detections,
        }
        return Evaluation(result, protocol, count_objects(truth.ignore))
