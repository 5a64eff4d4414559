"""Recall, retrieval and purity of pseudo-labels, worked out by hand."""

import math

import numpy as np
import pytest

from rsd2.data.pseudo_labels import PseudoLabels
from rsd2.projects.mutdet.telemetry import describe_pseudo_labels, purity, retrieval


def labels(name, boxes, embeddings=None, clusters=None):
    boxes = np.array(boxes, dtype=np.float32).reshape(-1, 5)
    return PseudoLabels(
        f"images/{name}.png",
        64,
        64,
        boxes,
        np.ones(len(boxes), np.float32),
        None,
        embeddings,
        clusters,
    )


def truth(name, *objects):
    annotations = [{"bbox": box, "category_id": k} for box, k in objects]
    return {"file_name": f"elsewhere/{name}.png", "annotations": annotations}


A, B, AWAY = [20, 20, 20, 10, 0], [45, 45, 20, 10, 30], [50, 10, 8, 8, 0]


def test_recall_and_share_on_objects():
    # two boxes on A, none on B, one away; the second image has an object and no box
    records = [labels("a", [A, [21, 20, 20, 10, 2], AWAY]), labels("b", [])]
    result = describe_pseudo_labels(records, [truth("a", (A, 0), (B, 1)), truth("b", (A, 0))])
    assert result["recall"] == pytest.approx(1 / 3)
    assert result["on_object"] == pytest.approx(2 / 3)
    assert result["boxes_per_image"] == 1.5 and "retrieval" not in result
    with pytest.raises(ValueError, match=r"no pseudo-labels of c\.png"):
        describe_pseudo_labels(records, [truth("c", (A, 0))])


def test_nothing_at_all_is_undefined():
    result = describe_pseudo_labels([labels("a", [])], [truth("a")])
    assert math.isnan(result["recall"]) and math.isnan(result["on_object"])


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
    embeddings, clusters = unit(0, 180, 90), np.array([0, 3, 1])
    records = [
        labels("a", [A, AWAY, B], embeddings, clusters),
        labels("b", [A], unit(5), np.array([0])),
    ]
    result = describe_pseudo_labels(records, [truth("a", (A, 0), (B, 1)), truth("b", (A, 0))])
    # A of either image finds the other; B finds A of the second image
    assert result["retrieval"] == pytest.approx(2 / 3)
    assert result["retrieval_by_chance"] == pytest.approx((1 + 0 + 1 / 2) / 3)
    assert result["purity"] == 1.0


def test_purity():
    assert purity(np.array([0, 0, 0, 1]), np.array([2, 2, 1, 0])) == 3 / 4
