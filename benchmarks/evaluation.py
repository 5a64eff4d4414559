"""The evaluators of tiny objects against pycocotools and its Python matching, on equal numbers.

Both sides start from loaded annotations and detections. ``tests/benchmarks`` holds the two to equal
results; here a case fails if they differ.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np

from benchmarks.harness import Case
from rsd2.evaluation import TinyProtocol, score_tiny
from rsd2.evaluation.scoring.aitod import score_coco

from . import evaluation_peers as peers

NUM_IMAGES = 5000


def cases() -> list[Case]:
    """List cases of both metrics."""
    return [tiny_case(NUM_IMAGES, 15, 60), aitod_case(NUM_IMAGES, 15, 60)]


def tiny_case(num_images: int, num_objects: int, num_detections: int) -> Case:
    """Time TinyPerson's AP: 3 thresholds, 7 ranges of size, one class.

    Args:
        num_images: number of images.
        num_objects: mean number of objects in an image.
        num_detections: number of detections in an image.
    """
    arrays = cache(lambda: peers.make_data(num_images, num_objects, num_detections))
    coco = cache(lambda: peers.to_coco(*arrays()))
    protocol = TinyProtocol()
    ours, theirs = _compared(
        lambda: score_tiny(*arrays(), protocol).precision,
        lambda: peers.run_tiny(*coco(), protocol),
    )

    return Case(
        f"TinyPerson AP, {num_images} images",
        f"{num_objects} objects and {num_detections} detections an image",
        ours,
        {"pycocotools, matching in Python": theirs},
        dtype="float64",
        is_slow=True,
    )


def aitod_case(num_images: int, num_objects: int, num_detections: int) -> Case:
    """Time AI-TOD's AP: 10 thresholds, 5 ranges of size, 8 classes.

    Args:
        num_images: number of images.
        num_objects: mean number of objects in an image.
        num_detections: number of detections in an image.
    """

    @cache
    def arrays() -> tuple:
        truth, found = peers.make_data(num_images, num_objects, num_detections, num_classes=8)
        # AI-TOD has no ignored objects.
        nothing = np.zeros(len(truth.boxes), dtype=bool)
        return type(truth)(**{**vars(truth), "ignore": nothing}), found

    coco = cache(lambda: peers.to_coco(*arrays()))
    ours, theirs = _compared(lambda: score_coco(*arrays())[0], lambda: peers.run_aitod(*coco()))
    return Case(
        f"AI-TOD AP, {num_images} images",
        f"{num_objects} objects and {num_detections} detections an image, 8 classes",
        ours,
        {"pycocotools": theirs},
        note="ours is faster-coco-eval, from arrays",
        dtype="float64",
        is_slow=True,
    )


def _compared(*contenders: Callable[[], np.ndarray]) -> list[Callable[[], np.ndarray]]:
    """Wrap contenders so that one fails whose numbers differ from those of the first to run."""
    seen: list[np.ndarray] = []

    def guard(work: Callable[[], np.ndarray]) -> Callable[[], np.ndarray]:
        def run() -> np.ndarray:
            numbers = work()
            if seen:
                # A comparison of times is worth nothing if the numbers differ.
                np.testing.assert_allclose(numbers, seen[0], rtol=0, atol=1e-9)
            else:
                seen.append(numbers)
            return numbers

        return run

    return [guard(work) for work in contenders]
