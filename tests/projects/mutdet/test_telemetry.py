"""Recall, retrieval and purity of pseudo-labels, worked out by hand."""

import math

import numpy as np
import pytest

from rsd2.data.formats.pseudo_labels import PseudoLabels
from rsd2.projects.mutdet.telemetry import describe_embeddings, purity, retrieval


def labels(name, boxes, embeddings, clusters):
    boxes = np.array(boxes, dtype=np.float32).reshape(-1, 5)
    scores = np.ones(len(boxes), np.float32)
    return PseudoLabels(
        f"{name}.png", 64, 64, boxes, scores, None, embeddings, np.array(clusters, np.int64)
    )


A, B, AWAY = [20, 20, 20, 10, 0], [45, 45, 20, 10, 30], [50, 10, 8, 8, 0]
TRUTH = {
    "a.png": (np.array([A, B], dtype=np.float64), ["ship", "plane"]),
    "b.png": (np.array([A], dtype=np.float64), ["ship"]),
    "empty.png": (np.zeros((0, 5)), []),
}


def unit(*angles):
    radians = np.radians(np.array(angles, dtype=np.float32))
    return np.stack([np.cos(radians), np.sin(radians)], axis=1)


def test_retrieval_looks_into_other_images_only():
    # degrees and classes: 0 a, 1 b in one image, 10 a, 95 b in another, 9 a in a third.
    # Nearest elsewhere: 0 -> 9 right, 1 -> 9 wrong, 10 -> 9 right, 95 -> 9 wrong, 9 -> 10 right.
    vectors, classes = unit(0, 1, 10, 95, 9), np.array([0, 1, 0, 1, 0])
    result = retrieval(vectors, classes, np.array([0, 0, 1, 1, 2]))
    assert result["retrieval"] == 3 / 5
    assert result["retrieval_by_chance"] == pytest.approx((2 + 1 + 2 + 1 + 1.5) / 3 / 5)
    alone = retrieval(unit(0, 1), np.array([0, 0]), np.array([3, 3]))
    assert math.isnan(alone["retrieval"])


def test_embeddings_and_clusters_are_those_of_the_boxes_on_objects():
    records = [
        labels("a", [A, AWAY, B], unit(0, 180, 90), [0, 3, 1]),
        labels("b", [[21, 20, 20, 10, 2]], unit(5), [0]),
        labels("empty", [AWAY], unit(0), [2]),
        labels("unlabelled", [A], unit(0), [1]),
    ]
    result = describe_embeddings(records, TRUTH.get)
    assert result["on_objects"] == 3
    # the ship of either image finds the other; the plane finds the ship of the second image
    assert result["retrieval"] == pytest.approx(2 / 3)
    assert result["retrieval_by_chance"] == pytest.approx((1 + 0 + 1 / 2) / 3)
    assert result["purity"] == 1.0


def test_nothing_on_any_object_is_undefined():
    records = [labels("a", [AWAY], unit(0), [0]), labels("b", [], unit(), [])]
    result = describe_embeddings(records, TRUTH.get)
    assert result["on_objects"] == 0 and math.isnan(result["retrieval"])
    assert math.isnan(result["purity"])


def test_purity():
    assert purity(np.array([0, 0, 0, 1]), np.array([2, 2, 1, 0])) == 3 / 4
