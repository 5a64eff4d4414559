"""Compare the results and the speed of two detectors on the same windows.

Shapes: N detections of the first detector, M of the second.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from rsd2.structures import boxes_to_corners, from_horizontal

Detections = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
Detect = Callable[[list[Any]], Sequence[Detections]]

# Largest allowed differences: float32 sums in another order, nothing that a map would show.
BOX_TOLERANCE = 0.01
SCORE_TOLERANCE = 1e-4
# A detection without one of its class within this many pixels has no partner.
_PARTNER_DISTANCE = 1.0


@dataclass
class Parity:
    """Result of a comparison.

    Attributes:
        num_windows: number of compared windows.
        num_detections: number of detections of the first detector that were compared.
        box_difference: largest distance of a corner from the partner's, pixels.
        score_difference: largest difference of the scores of partners.
        missing: number of detections of the first detector without a partner in the second.
        extra: number of detections of the second detector without a partner in the first.
        seconds: durations of each detector, one for every window.
    """

    num_windows: int = 0
    num_detections: int = 0
    box_difference: float = 0.0
    score_difference: float = 0.0
    missing: int = 0
    extra: int = 0
    seconds: tuple[list[float], list[float]] = field(default_factory=lambda: ([], []))

    def is_within(
        self, box_tolerance: float = BOX_TOLERANCE, score_tolerance: float = SCORE_TOLERANCE
    ) -> bool:
        """Tell whether both detectors found the same objects.

        Args:
            box_tolerance: largest allowed distance of two corners, pixels.
            score_tolerance: largest allowed difference of two scores, in [0, 1].
        """
        return (
            self.missing == self.extra == 0
            and self.box_difference <= box_tolerance
            and self.score_difference <= score_tolerance
        )

    def __str__(self) -> str:
        # The median, because the first window pays for the warm-up.
        first, second = (1000 * float(np.median(x)) if x else 0.0 for x in self.seconds)
        return (
            f"{self.num_detections} detections in {self.num_windows} windows: boxes differ by at "
            f"most {self.box_difference:.2g} px, scores by {self.score_difference:.2g}; "
            f"{self.missing} are missing, {self.extra} more, counting other classes\n"
            f"median of a window: torch {first:.0f} ms, ONNX Runtime {second:.0f} ms "
            f"({torch.get_num_threads()} threads)"
        )


def corner_distances(boxes1: torch.Tensor, boxes2: torch.Tensor) -> torch.Tensor:
    """Measure how far corners of boxes lie apart, however the boxes are written.

    Args:
        boxes1: (N, 5) boxes, pixels and degrees.
        boxes2: (M, 5) boxes, pixels and degrees.

    Returns:
        (N, M) largest distance of corresponding corners, pixels. A rectangle's corners can be
            numbered in four ways in one direction; the numbering with the smallest distance counts.
    """
    # float64, because the tolerance is near the float32 rounding of a large scene's coordinates.
    corners1 = boxes_to_corners(boxes1.double())[:, None]
    corners2 = boxes_to_corners(boxes2.double())[None]
    # A quarter turn with exchanged sides is the same rectangle with its corners renumbered.
    turned = [(corners1 - corners2.roll(k, dims=2)).norm(dim=-1).amax(dim=2) for k in range(4)]
    return torch.stack(turned).amin(dim=0)


def compare(
    first: Detect,
    second: Detect,
    windows: Sequence[np.ndarray | Sequence[np.ndarray]],
    score_floor: float = 0.05,
    progress: Callable[[], None] | None = None,
) -> Parity:
    """Run two detectors on the same windows, one window at a time.

    Args:
        first: reference detector.
        second: detector to compare with it.
        windows: (h, w, 3) uint8 RGB each, or clips of such images.
        score_floor: detections with a lower score are not compared; nobody reports them, and
            among them the order of near ties is a matter of rounding.
        progress: called after each window.

    Returns:
        The differences.
    """
    parity = Parity()
    for window in windows:
        found: list[Detections] = []
        for detect, seconds in zip((first, second), parity.seconds):
            start = time.perf_counter()
            found.append(detect([window])[0])
            seconds.append(time.perf_counter() - start)

        expected, actual = found
        add_differences(parity, expected, actual, score_floor)
        parity.num_windows += 1
        if progress is not None:
            progress()
    return parity


def add_differences(
    parity: Parity, expected: Detections, actual: Detections, score_floor: float
) -> None:
    """Compare the detections of one window.

    Args:
        parity: gets the differences.
        expected: boxes (N, 5), or (N, 4) XYXY, scores (N,), classes (N,).
        actual: boxes (M, 5), or (M, 4) XYXY, scores (M,), classes (M,).
        score_floor: see `compare`; a partner may score less by the tolerance.
    """
    rotated = [from_horizontal(x[0]) if x[0].shape[1] == 4 else x[0] for x in (expected, actual)]
    distance = corner_distances(*rotated)
    distance[expected[2][:, None] != actual[2][None]] = torch.inf
    sure = [scores >= score_floor + SCORE_TOLERANCE for _, scores, _ in (expected, actual)]
    parity.num_detections += int(sure[0].sum())

    partner_distance, partner = _nearest(distance)
    has_partner = partner_distance <= _PARTNER_DISTANCE
    parity.missing += int((sure[0] & ~has_partner).sum())
    parity.extra += int((sure[1] & ~(_nearest(distance.T)[0] <= _PARTNER_DISTANCE)).sum())

    compared = sure[0] & has_partner
    if compared.any():
        scores = (expected[1][compared] - actual[1][partner[compared]]).abs()
        parity.score_difference = max(parity.score_difference, float(scores.max()))
        boxes = partner_distance[compared]
        parity.box_difference = max(parity.box_difference, float(boxes.max()))


def _nearest(distance: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Smallest distance in each row, and where; infinity and 0 where there are no columns."""
    if distance.shape[1] == 0:
        rows = distance.shape[0]
        return distance.new_full((rows,), torch.inf), torch.zeros(rows, dtype=torch.int64)
    nearest = distance.min(dim=1)
    return nearest.values, nearest.indices
