"""Greedy matching of all images at once: equal to choosing one after the other."""

from __future__ import annotations

import numpy as np
import pytest

from rsd2.evaluation import BoxDetections, BoxTruth
from rsd2.evaluation.matching import boxes as matching

from ..cases import upright_case


def make(
    boxes: list, found: list, scores: list | None = None, images: list | None = None
) -> tuple[BoxTruth, BoxDetections]:
    """Objects and detections of one class; ``images`` numbers both, all in image 0 without it."""
    where = images or ([0] * len(boxes), [0] * len(found))
    values = np.linspace(1, 0.5, len(found)) if scores is None else scores
    objects = [{"image": image, "box": box} for image, box in zip(where[0], boxes)]
    detections = [(*row[:1], 0, *row[1:]) for row in zip(where[1], values, found)]
    return upright_case(objects, detections, num_images=2)


def one_after_the_other(
    truth: BoxTruth, detections: BoxDetections, ignored: np.ndarray, threshold: float
) -> list[int]:
    """What each detection takes when they choose in turn."""
    taken: set[int] = set()
    chosen = []
    for image, box in zip(detections.image_index, detections.boxes):
        best, best_iou = -1, threshold
        for k, other in enumerate(truth.boxes):
            if k in taken or ignored[k] or truth.image_index[k] != image:
                continue
            low, high = np.maximum(box[:2], other[:2]), np.minimum(box[2:], other[2:])
            shared = np.clip(high - low, 0, None).prod()
            union = (box[2:] - box[:2]).prod() + (other[2:] - other[:2]).prod() - shared
            if shared / union >= best_iou:
                best, best_iou = k, shared / union
        taken.add(best)
        chosen.append(best)
    return chosen


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("max_pairs", [3, 2_000_000])
def test_equals_choosing_in_turn(
    seed: int, max_pairs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matching, "_MAX_PAIRS", max_pairs)
    rng = np.random.default_rng(seed)

    def boxes(count: int) -> np.ndarray:
        corner = rng.integers(0, 12, (count, 2))  # so many of equal overlap
        return np.concatenate([corner, corner + rng.integers(4, 9, (count, 2))], axis=1)

    images = (rng.integers(0, 2, 25).tolist(), rng.integers(0, 2, 40).tolist())
    truth, found = make(boxes(25), boxes(40), rng.integers(0, 9, 40) / 10, images)
    ranked = matching.rank_detections(found, None)
    ignored = rng.uniform(size=25) < 0.2
    pairs = matching.find_overlaps(truth, ranked, 0.1)
    for threshold in (0.1, 0.3, 0.6):
        result = matching.match_greedily(pairs, 40, ignored, threshold, None)
        assert result.truth.tolist() == one_after_the_other(truth, ranked, ignored, threshold)
        assert (result.iou[result.truth >= 0] >= threshold).all()
        assert not (result.ignored & (result.truth >= 0)).any()


def test_a_chain_of_refusals() -> None:
    """Each detection prefers the object of the one before: all but the last are turned out once."""
    objects = [[10 * k, 0, 10 * k + 20, 20] for k in range(60)]
    found = [[10 * k + 1, 0, 10 * k + 21, 20] for k in range(59, -1, -1)]
    truth, detections = make(objects, found)
    ranked = matching.rank_detections(detections, None)
    pairs = matching.find_overlaps(truth, ranked, 0.1)
    result = matching.match_greedily(pairs, 60, np.zeros(60, dtype=bool), 0.1, None)
    assert sorted(result.truth.tolist()) == list(range(60))
    assert result.truth.tolist() == list(range(59, -1, -1))


def test_overlaps_by_hand() -> None:
    truth, found = make([[0, 0, 10, 10], [5, 0, 15, 10]], [[5, 0, 10, 10]])
    pairs = matching.find_overlaps(truth, found, 0.1)
    assert pairs.truth.tolist() == [1, 0]  # equal overlap: the later object first
    assert pairs.iou.tolist() == [0.5, 0.5]
    assert pairs.iod.tolist() == [1.0, 1.0]


def test_touching_and_flat_boxes_do_not_overlap() -> None:
    truth, found = make([[0, 0, 10, 10]], [[10, 0, 20, 10], [3, 3, 3, 9], [9, 9, 2, 2]])
    assert len(matching.find_overlaps(truth, found, 0.01).iou) == 0


def test_rank_keeps_the_best_of_each_image_and_class() -> None:
    detections = BoxDetections(
        np.array([1, 0, 0, 0, 0]),
        np.array([0, 0, 1, 0, 0]),
        np.array([0.1, 0.2, 0.3, 0.4, 0.4]),
        np.arange(20.0).reshape(5, 4),
    )
    ranked = matching.rank_detections(detections, 2)
    assert ranked.boxes[:, 0].tolist() == [12, 16, 8, 0]  # equal scores in their order
    assert len(matching.rank_detections(detections.select(np.zeros(5, dtype=bool)), 2).scores) == 0


def test_regions_by_share_of_the_detection_or_by_iou() -> None:
    truth, found = make([[0, 0, 100, 100]], [[5, 5, 9, 9], [50, 50, 60, 60], [0, 0, 100, 90]])
    pairs = matching.find_overlaps(truth, found, 0.5)
    region = np.ones(1, dtype=bool)
    by_share = matching.match_greedily(pairs, 3, region, 0.5, 0.5)
    assert by_share.ignored.tolist() == [True, True, True]
    by_iou = matching.match_greedily(pairs, 3, region, 0.5, None)
    assert by_iou.ignored.tolist() == [False, False, True]
    assert (by_iou.truth == -1).all()


def test_truth_from_dicts() -> None:
    records = [
        {"image_id": "a", "annotations": []},
        {
            "image_id": "b",
            "annotations": [
                {"bbox": [1, 2, 3, 4], "category_id": 1, "area": 10, "uncertain": True},
                {"bbox": [0, 0, 5, 5], "category_id": 0, "iscrowd": 1},
            ],
        },
    ]
    truth = BoxTruth.from_dicts(records, ["x", "y"])
    assert truth.image_index.tolist() == [1, 1]
    assert truth.boxes.tolist() == [[1, 2, 4, 6], [0, 0, 5, 5]]
    assert truth.areas.tolist() == [10, 25]
    assert truth.ignore.tolist() == [False, True]
    assert truth.uncertain.tolist() == [True, False]
    with pytest.raises(ValueError, match="repeat"):
        BoxTruth.from_dicts([records[0], records[0]], ["x"])
    with pytest.raises(ValueError, match="no annotations"):
        BoxTruth.from_dicts([{"image_id": "a"}], ["x"])
