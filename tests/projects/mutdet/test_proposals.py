"""The embedded source: finds what stands out, whatever its colour, and says the same each time."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from rsd2.ops import box_iou_rotated
from rsd2.projects.mutdet.box_filters import FELZENSZWALB_FILTERS
from rsd2.projects.mutdet.label_run import Labeller
from rsd2.projects.mutdet.proposals import FelzenszwalbProposals
from rsd2.structures import boxes_to_corners, corners_to_boxes
from rsd2.synthetic import SceneConfig, draw_scene

LABELLER = Labeller(FelzenszwalbProposals(), FELZENSZWALB_FILTERS)


@pytest.mark.parametrize(
    ("ground", "paint"), [((90, 90, 90), (200, 40, 40)), ((220, 210, 40), (40, 40, 40))]
)
def test_rectangles_on_plain_ground_are_the_best_proposals(ground: tuple, paint: tuple) -> None:
    rng = np.random.default_rng(0)
    image = np.clip(rng.normal(0, 3, (100, 120, 3)) + ground, 0, 255).astype(np.uint8)
    true = np.array([[30.0, 30, 30, 12, 25], [80, 60, 24, 10, -70]])
    corners = boxes_to_corners(torch.from_numpy(true)).numpy()
    for outline in corners:
        cv2.fillPoly(image, [np.round(outline).astype(np.int32)], paint)
    labels, counts = LABELLER(image, "x")
    iou = box_iou_rotated(torch.from_numpy(labels.boxes[:2]).double(), torch.from_numpy(true))
    assert (iou.amax(0) > 0.8).all()
    assert (labels.height, labels.width) == (100, 120)
    assert counts["boxes"] == len(labels.boxes)
    assert counts["proposals"] == sum(counts.values()) - counts["proposals"]


def test_recall_on_generated_scenes() -> None:
    """The floor that the project demands of the embedded source, at its default settings."""
    found = total = boxes = 0
    for index in range(12):
        scene = draw_scene(SceneConfig(size=128), 21, index)
        labels, _ = LABELLER(scene.image, "x")
        boxes += len(labels.boxes)
        polygons = [o.poly for o in scene.objects if o.difficult == 0]
        if not polygons:
            continue
        true = corners_to_boxes(torch.from_numpy(np.stack(polygons)))
        iou = box_iou_rotated(torch.from_numpy(labels.boxes).double(), true)
        found, total = found + int((iou.amax(0) >= 0.5).sum()), total + len(true)
    assert total > 30 and found / total >= 0.4
    assert boxes / 12 <= 100


def test_equal_images_give_equal_masks_inside_the_image() -> None:
    image = draw_scene(SceneConfig(size=96), 3, 1).image
    source = FelzenszwalbProposals()
    first, second = source(image), source(image.copy())
    assert len(first) == len(second) > 5
    for one, two in zip(first, second):
        np.testing.assert_array_equal(one.mask, two.mask)
        assert one[1:] == two[1:]
        height, width = one.mask.shape
        assert one.x >= 0 and one.y >= 0 and one.x + width <= 96 and one.y + height <= 96
        assert one.mask.any(axis=1).all() and one.mask.any(axis=0).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (8, 8), (64, 64)])
def test_plain_and_tiny_images_have_no_proposals_and_no_error(shape: tuple[int, int]) -> None:
    labels, counts = LABELLER(np.full((*shape, 3), 77, np.uint8), "x")
    assert labels.boxes.shape == (0, 5) and counts["images_without_boxes"] == 1


@pytest.mark.parametrize(
    "wrong", [{"scales": ()}, {"scales": (0.0,)}, {"min_size": 0}, {"max_area_fraction": 0.0}]
)
def test_settings_out_of_range(wrong: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        FelzenszwalbProposals(**wrong)
