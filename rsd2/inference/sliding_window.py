"""Detection in an image of any size: in overlapping windows, merged as the evaluator merges tiles.

The model is a function, so that nothing here needs Detectron2.

Shapes: M windows, N detections of one window, D detections of the image, H, W image size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from rsd2.data.windows.tiling import compute_windows, crop_window
from rsd2.evaluation.records import OutputRecord, make_record

from .seams import SeamCounts, SeamRule, WindowDetections, check_seam_rule, to_window_detections
from .streamed_merging import merge_windows

Detect = Callable[[list[np.ndarray]], Sequence[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]]
"""From (h, w, 3) uint8 images to boxes (N, 5) in pixels of each, scores (N,), classes (N,)."""


@dataclass(frozen=True)
class WindowParameters:
    """How an image is cut, and how its detections are put together again.

    Attributes:
        window: side of the windows, pixels, > 0. An image that fits into one window stays whole.
        overlap: shared by neighbouring windows, pixels, in [0, window); an object that is longer
            may be whole in no window.
        nms_threshold: detections of several windows are merged by rotated NMS per class at this
            IoU, in [0, 1]; None keeps them all.
        score_threshold: detections with a lower score are dropped before that.
        batch_size: windows handed to the model at once, >= 1.
        padding: fill windows that leave the image with the padding colour, as written tiles are;
            else they end where the image ends.
        seams: what becomes of objects that the border of a window cuts, before the merging; see
            `rsd2.inference.seams`.
    """

    window: int = 1024
    overlap: int = 200
    nms_threshold: float | None = 0.1
    score_threshold: float = 0.0
    batch_size: int = 1
    padding: bool = False
    seams: SeamRule = "drop"

    def __post_init__(self) -> None:
        """Refuse parameters that cannot be meant."""
        check_seam_rule(self.seams)
        if not 0 <= self.overlap < self.window:
            raise ValueError(
                f"overlap must be in [0, window), got overlap {self.overlap} and window "
                f"{self.window}; the windows advance by window - overlap pixels"
            )
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {self.batch_size}")
        for name in ("score_threshold", "nms_threshold"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {value}")


@dataclass(frozen=True)
class ImageDetections:
    """Detections of an image, and what happened on the way.

    Attributes:
        boxes: (D, 5) float64, pixels of the image and degrees.
        scores: (D,) float64, decreasing.
        classes: (D,) int64.
        num_windows: M.
        num_below_threshold: detections dropped because of their score.
        num_non_finite: detections dropped because a number of theirs was NaN or infinite.
        num_merged: detections that fell to the NMS between windows.
        seams: what became of the pieces of objects that borders of windows cut.
    """

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    num_windows: int
    num_below_threshold: int
    num_non_finite: int
    num_merged: int
    seams: SeamCounts = SeamCounts()


def place_windows(height: int, width: int, parameters: WindowParameters) -> np.ndarray:
    """Cover an image with windows.

    Args:
        height: of the image, pixels, >= 1.
        width: of the image, pixels, >= 1.
        parameters: size and overlap of the windows.

    Returns:
        (M, 4) int64 windows x0, y0, x1, y1 that cover every pixel; a single one if the image fits
        into it. With ``padding`` all are of full size; without, none leaves the image.
    """
    windows = compute_windows(width, height, parameters.window, parameters.overlap, 0.0)
    if not parameters.padding:
        windows[:, 2:] = np.minimum(windows[:, 2:], (width, height))
    return windows


def detect_in_windows(
    image: np.ndarray,
    detect: Detect,
    parameters: WindowParameters,
    progress: Callable[[int, int], None] | None = None,
) -> ImageDetections:
    """Detect objects window by window and merge what the windows found.

    Only ``batch_size`` windows exist at a time. Pieces of objects that a window's border cuts are
    treated by the rule for seams; then an object in the overlap of two windows is reported once, by
    its best-scored detection. Detections of a single window stay as the model gives them, like
    whole images in the evaluator.

    Args:
        image: (H, W, 3) uint8; may be a memory map.
        detect: the model.
        parameters: of windows and merging.
        progress: called after each batch with the numbers of windows done and of all windows.

    Returns:
        The detections in pixels of ``image``.

    Raises:
        ValueError: if the image has another shape or type, or ``detect`` returns results of
            another number or form.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise ValueError(f"image must be (H, W, 3) uint8, got {image.shape} {image.dtype}")
    windows = place_windows(*image.shape[:2], parameters)
    records: list[OutputRecord] = []
    for start in range(0, len(windows), parameters.batch_size):
        batch = windows[start : start + parameters.batch_size]
        outputs = detect([crop_window(image, window) for window in batch])
        if len(outputs) != len(batch):
            raise ValueError(f"detect returned {len(outputs)} results for {len(batch)} images")
        for (x0, y0, x1, y1), output in zip(batch.tolist(), outputs):
            tile = {"x": x0, "y": y0, "width": x1 - x0, "height": y1 - y0}
            records.append(
                make_record(
                    "", tile if len(windows) > 1 else None, *output, parameters.score_threshold
                )
            )
        if progress is not None:
            progress(len(records), len(windows))

    found, seams = _merge(records, image.shape[:2], parameters)
    num_accepted = sum(len(record.scores) for record in records)
    num_candidates = num_accepted - seams.dropped - seams.pieces + seams.joined
    return ImageDetections(
        boxes=found.boxes,
        scores=found.scores,
        classes=found.classes,
        num_windows=len(windows),
        num_below_threshold=sum(record.num_below_floor for record in records),
        num_non_finite=sum(record.num_not_finite for record in records),
        num_merged=num_candidates - len(found.scores),
        seams=seams,
    )


def _merge(
    records: list[OutputRecord], size: tuple[int, ...], parameters: WindowParameters
) -> tuple[WindowDetections, SeamCounts]:
    """Merge what the windows of an image (H, W) found; also what was done at the seams."""
    # In the evaluator's order, so that equal scores are decided as there.
    found = to_window_detections(sorted(records, key=lambda record: record.window))
    if len(records) == 1:
        return found.select(np.argsort(-found.scores, kind="stable")), SeamCounts()
    return merge_windows(found, (size[0], size[1]), parameters.seams, parameters.nms_threshold)
