"""What evaluation keeps of every model output, and how the outputs of many tiles become one image.

Shapes: N detections of one output, D detections of all images.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from .matching.serial_torch import serial_torch
from .merging import merge_tile_detections, shift_to_full_image
from .scoring.dota import Detections, finite_rows

TileKey = tuple[int, ...]


@dataclass(frozen=True)
class OutputRecord:
    """Detections of one model input, a tile or a whole image, in full-image pixels.

    Attributes:
        image_id: of the full image.
        tile: (x, y, width, height) in the full image; empty for a whole image.
        boxes: (N, 5) float64.
        scores: (N,) float64.
        classes: (N,) int64.
        num_non_finite: detections dropped because a number of theirs was NaN or infinite.
        num_below_floor: detections dropped because of the score floor.
    """

    image_id: str
    tile: TileKey
    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    num_non_finite: int
    num_below_floor: int


def make_record(
    image_id: str,
    tile: Mapping[str, int] | None,
    boxes: torch.Tensor,
    scores: torch.Tensor,
    classes: torch.Tensor,
    score_floor: float | None = None,
) -> OutputRecord:
    """Shift one output to its full image and drop what cannot be scored, counting it.

    Args:
        image_id: of the full image.
        tile: ``x, y, width, height`` of the tile in the full image, or None for a whole image.
        boxes: (N, 5) in pixels of the input, any device.
        scores: (N,).
        classes: (N,) integers.
        score_floor: detections with a smaller score are dropped; None keeps all.

    Returns:
        The record, in numpy on the CPU, ready to be sent to another process.
    """
    key = tuple(int(tile[name]) for name in ("x", "y", "width", "height")) if tile else ()
    moved = shift_to_full_image(boxes.detach().cpu(), *(key[:2] or (0, 0))).numpy()
    values = scores.detach().cpu().to(torch.float64).numpy()
    labels = classes.detach().cpu().to(torch.int64).numpy()
    finite = finite_rows(values, moved)
    keep = finite if score_floor is None else finite & (values >= score_floor)
    return OutputRecord(
        image_id=image_id,
        tile=key,
        boxes=moved[keep],
        scores=values[keep],
        classes=labels[keep],
        num_non_finite=int((~finite).sum()),
        num_below_floor=int((finite & ~keep).sum()),
    )


@dataclass(frozen=True)
class AssembledOutputs:
    """All outputs as detections on full images, and what happened on the way.

    Attributes:
        detections: ready for :func:`score_detections`.
        counts: of outputs, tiles, images and detections, by name.
        seen: (image id, tile key) of every distinct output.
    """

    detections: Detections
    counts: dict[str, int]
    seen: frozenset[tuple[str, TileKey]]


def assemble_outputs(
    records: Iterable[OutputRecord],
    image_index: Mapping[str, int],
    *,
    nms_threshold: float | None = 0.1,
    max_detections: int | None = None,
) -> AssembledOutputs:
    """Merge the tiles of every image; the result does not depend on the order of the records.

    An input seen twice (by two processes, or listed twice) counts once. Rotated NMS is applied
    to images that came in tiles; whole images stay as the model gave them.

    Args:
        records: of all processes.
        image_index: number of each image id in the ground truth.
        nms_threshold: of :func:`merge_tile_detections`; None merges without suppression.
        max_detections: the highest-scored ones kept of every full image; None keeps all.

    Returns:
        Detections in the order of the images; within one in decreasing score, equal scores by
        tile position and output order.
    """
    distinct: dict[tuple[str, TileKey], OutputRecord] = {}
    num_repeated = 0
    for record in records:
        num_repeated += (record.image_id, record.tile) in distinct
        distinct.setdefault((record.image_id, record.tile), record)
    by_image: dict[str, list[OutputRecord]] = {}
    for _, record in sorted(distinct.items()):
        by_image.setdefault(record.image_id, []).append(record)

    parts = []
    for image_id in sorted(by_image, key=image_index.__getitem__):
        own = by_image[image_id]
        boxes = np.concatenate([record.boxes for record in own])
        scores = np.concatenate([record.scores for record in own])
        classes = np.concatenate([record.classes for record in own])
        with serial_torch():
            keep = merge_tile_detections(
                *(torch.from_numpy(array) for array in (boxes, scores, classes)),
                iou_threshold=nms_threshold if any(record.tile for record in own) else None,
            ).numpy()[:max_detections]
        index = np.full(len(keep), image_index[image_id], dtype=np.int64)
        parts.append((index, classes[keep], scores[keep], boxes[keep]))
    empty = np.zeros(0, dtype=np.int64)
    parts.append((empty, empty, np.zeros(0), np.zeros((0, 5))))
    all_of = [np.concatenate(arrays) for arrays in zip(*parts)]
    kept = distinct.values()
    return AssembledOutputs(
        detections=Detections(*all_of),
        counts={
            "images_predicted": len(by_image),
            "images_merged_from_tiles": sum(any(r.tile for r in own) for own in by_image.values()),
            "tiles_predicted": sum(bool(record.tile) for record in kept),
            "outputs_seen_more_than_once": num_repeated,
            "detections_predicted": sum(
                len(r.scores) + r.num_non_finite + r.num_below_floor for r in kept
            ),
            "detections_dropped_not_finite": sum(record.num_non_finite for record in kept),
            "detections_dropped_below_score_floor": sum(r.num_below_floor for r in kept),
            "detections_scored": len(all_of[2]),
        },
        seen=frozenset(distinct),
    )
