"""Detection in the newest frame of a clip of any size: in overlapping windows that are merged.

The model is any function of its kind, so that nothing here needs Detectron2.

Shapes: T frames of a clip, N detections, H, W size of a frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch

from rsd2.data.windows.tiling import crop_window
from rsd2.evaluation.matching.boxes import BoxDetections
from rsd2.evaluation.records import BoxMerging, assemble_outputs, make_record

from .sliding_window import WindowParameters, place_windows


class DetectClips(Protocol):
    """What `rsd2.inference.clip_detector.ClipDetector` does."""

    num_frames: int

    def __call__(
        self, clips: Sequence[Sequence[np.ndarray]]
    ) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """Detect objects in the newest frames of some clips together.

        Args:
            clips: each T images (h, w, 3) uint8 RGB of one size, newest first.

        Returns:
            For each clip boxes (N, 4) XYXY in pixels of its frames, scores (N,), classes (N,).
        """


def detect_in_clip(
    clip: Sequence[np.ndarray], detector: DetectClips, parameters: WindowParameters
) -> tuple[BoxDetections, dict[str, int]]:
    """Detect objects in the newest frame of a clip, in overlapping windows if it is large.

    A window's border cuts objects in two; what is centred within a quarter of the overlap from it
    is left to the neighbour, which sees it whole.

    Args:
        clip: T images (H, W, 3) uint8 RGB, newest first.
        detector: the model.
        parameters: of windows and merging; the NMS between windows is that of upright boxes.

    Returns:
        The detections in decreasing score, and counts of what was dropped, see `assemble_outputs`.
    """
    windows = place_windows(*clip[0].shape[:2], parameters)
    records = []
    for start in range(0, len(windows), parameters.batch_size):
        batch = windows[start : start + parameters.batch_size]
        outputs = detector([[crop_window(image, box) for image in clip] for box in batch])
        for (x0, y0, x1, y1), output in zip(batch.tolist(), outputs):
            tile = {"x": x0, "y": y0, "width": x1 - x0, "height": y1 - y0}
            tile = tile if len(windows) > 1 else None
            keep = _lies_inside(output[0], tile, clip[0].shape[:2], parameters.overlap / 4)
            output = [values[keep] for values in output]
            records.append(make_record("", tile, *output, parameters.score_threshold))
    merged = assemble_outputs(records, {"": 0}, BoxMerging(parameters.nms_threshold))
    return merged.detections, merged.counts


def _lies_inside(
    boxes: torch.Tensor, tile: dict[str, int] | None, size: tuple[int, int], margin: float
) -> torch.Tensor:
    """(N,) bool, which centres keep the margin to the borders inside the frame (H, W) of a window.

    Boxes (N, 4) are in pixels of the window; those that are not finite stay, to be counted.
    """
    outside = torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
    if tile is None:
        return ~outside
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2
    sides = ((tile["x"], tile["width"], size[1]), (tile["y"], tile["height"], size[0]))
    for place, (start, length, whole) in zip(centers.unbind(1), sides):
        if start > 0:
            outside |= place < margin
        if start + length < whole:
            outside |= place > length - margin
    return ~outside
