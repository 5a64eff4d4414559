"""Boxes move with the image under every transform: by geometry, and by looking at pixels."""

import cv2
import numpy as np
import pytest
import torch
from detectron2.data import transforms as T
from fvcore.transforms.transform import (
    CropTransform,
    HFlipTransform,
    NoOpTransform,
    PadTransform,
    Transform,
    TransformList,
    VFlipTransform,
)

from rsd2.data.mappers.transforms import (
    Random90Rotation,
    RandomFlipDirection,
    RandomObjectCrop,
    Rot90Transform,
    RotatedAugInput,
    apply_transform_to_polygons,
    apply_transform_to_rotated_boxes,
)
from rsd2.structures import boxes_to_corners
from rsd2.testing import random_rotated_boxes

HEIGHT, WIDTH = 90, 140
SIMILARITIES = {
    "none": NoOpTransform(),
    "hflip": HFlipTransform(WIDTH),
    "vflip": VFlipTransform(HEIGHT),
    "both flips": TransformList([HFlipTransform(WIDTH), VFlipTransform(HEIGHT)]),
    **{f"rot90 x {k}": Rot90Transform(HEIGHT, WIDTH, k) for k in range(-1, 4)},
    "rotation": T.RotationTransform(HEIGHT, WIDTH, 33.0, expand=True),
    "rotation without expand": T.RotationTransform(HEIGHT, WIDTH, -71.0, expand=False),
    "resize": T.ResizeTransform(HEIGHT, WIDTH, 2 * HEIGHT, 2 * WIDTH),
    "shrink": T.ResizeTransform(HEIGHT, WIDTH, HEIGHT // 2, WIDTH // 2),
    "crop": CropTransform(12, 9, 100, 70),
    "pad": PadTransform(7, 3, 4, 5),
    "extent": T.ExtentTransform((20, 10, 120, 80), (140, 200)),
    "list": TransformList(
        [HFlipTransform(WIDTH), T.RotationTransform(HEIGHT, WIDTH, 20.0), PadTransform(1, 2, 3, 4)]
    ),
}
DISTORTIONS = {
    "stretch": T.ResizeTransform(HEIGHT, WIDTH, HEIGHT, 2 * WIDTH),
    "extent": T.ExtentTransform((30, 10, 110, 70), (90, 140)),
}


class _Shear(Transform):
    """x' = x + y / 2: what no similarity does."""

    def apply_image(self, img):
        return cv2.warpAffine(img, np.array([[1, 0.5, 0], [0, 1, 0.0]]), (2 * WIDTH, HEIGHT))

    def apply_coords(self, coords):
        return np.stack([coords[:, 0] + coords[:, 1] / 2, coords[:, 1]], axis=1)


def _corner_sets_differ(boxes, polygons):
    """Largest distance of a vertex of a polygon from the nearest corner of its box."""
    corners = boxes_to_corners(torch.from_numpy(boxes)).numpy()
    distances = np.linalg.norm(corners[:, :, None] - polygons[:, None], axis=-1)
    return max(distances.min(1).max(), distances.min(2).max())


@pytest.mark.parametrize("name", SIMILARITIES)
def test_polygon_of_the_moved_box_is_the_moved_polygon(name):
    transform = SIMILARITIES[name]
    boxes = random_rotated_boxes(200, 130, 1.0, 120.0, dtype=torch.float64)
    polygons = boxes_to_corners(boxes).numpy()
    before = polygons.copy()
    moved = apply_transform_to_rotated_boxes(transform, boxes.numpy())
    # Detectron2's extent transform works in float32.
    tolerance = 1e-3 if name == "extent" else 1e-6
    assert _corner_sets_differ(moved, apply_transform_to_polygons(transform, polygons)) < tolerance
    assert (moved[:, 2] >= moved[:, 3]).all() and (np.abs(moved[:, 4]) <= 90).all()
    assert (polygons == before).all(), "transforms that write into their input must get a copy"


@pytest.mark.parametrize("transform", [*DISTORTIONS.values(), _Shear()])
def test_distortion_gives_the_smallest_rectangle_around_the_moved_one(transform):
    boxes = random_rotated_boxes(50, 90, 5.0, 60.0, dtype=torch.float64)
    polygons = apply_transform_to_polygons(transform, boxes_to_corners(boxes).numpy())
    moved = apply_transform_to_rotated_boxes(transform, boxes.numpy())
    for box, polygon in zip(moved, polygons):
        (cx, cy), (w, h), _ = cv2.minAreaRect(polygon.astype(np.float32))
        assert box[2] * box[3] <= w * h * (1 + 1e-4)
        angle = np.deg2rad(box[4])
        frame = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        local = np.abs((polygon - box[:2]) @ frame.T)
        assert (local <= box[2:4] / 2 + 1e-3).all(), "every vertex lies in the box"


@pytest.mark.parametrize(
    "transform",
    [*SIMILARITIES.values(), *DISTORTIONS.values()],
    ids=[*SIMILARITIES, *(f"distorting {name}" for name in DISTORTIONS)],
)
def test_image_content_moves_with_the_boxes(transform):
    box = np.array([[72.0, 45.0, 30.0, 12.0, 25.0]])
    polygon = boxes_to_corners(torch.from_numpy(box)).numpy()
    moved_polygon = apply_transform_to_polygons(transform, polygon)
    moved = transform.apply_image(_draw(polygon[0], HEIGHT, WIDTH))
    expected = _draw(moved_polygon[0], *moved.shape[:2])
    # Half a pixel apart would be 0.5 in the centroid.
    np.testing.assert_allclose(_centroid(moved), _centroid(expected), atol=0.2)
    low, high = np.minimum(moved, expected) / 255, np.maximum(moved, expected) / 255
    assert low.sum() / high.sum() > 0.88
    center = apply_transform_to_rotated_boxes(transform, box)[0, :2]
    np.testing.assert_allclose(_centroid(moved), center, atol=0.3)


def _draw(polygon, height, width, factor=16):
    """Anti-aliased white polygon on black, drawn large in continuous coordinates and shrunk."""
    canvas = np.zeros((height * factor, width * factor), np.uint8)
    cv2.fillPoly(canvas, [np.round(polygon * factor - 0.5).astype(np.int32)], 255)
    small = cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA)
    return np.repeat(small[:, :, None], 3, axis=2)


def _centroid(image):
    weights = image[:, :, 0].astype(np.float64)
    rows, columns = np.indices(weights.shape)
    total = weights.sum()
    return ((columns + 0.5) * weights).sum() / total, ((rows + 0.5) * weights).sum() / total


def test_quarter_turns_by_hand_and_inverse():
    image = np.arange(2 * 3, dtype=np.uint8).reshape(2, 3, 1)
    turn = Rot90Transform(2, 3, 1)
    assert turn.apply_image(image)[:, :, 0].tolist() == [[2, 5], [1, 4], [0, 3]]
    # The pixel 2 has its centre at (2.5, 0.5), and then at (0.5, 0.5).
    assert turn.apply_coords(np.array([[2.5, 0.5]])).tolist() == [[0.5, 0.5]]
    assert turn.apply_segmentation(image[:, :, 0]).shape == (3, 2)
    points = np.random.default_rng(0).uniform(0, 2, (5, 2))
    for k in range(4):
        turn = Rot90Transform(2, 3, k)
        np.testing.assert_allclose(turn.inverse().apply_coords(turn.apply_coords(points)), points)
        assert (turn.inverse().apply_image(turn.apply_image(image)) == image).all()


def test_empty_boxes():
    for transform in SIMILARITIES.values():
        assert apply_transform_to_rotated_boxes(transform, np.zeros((0, 5))).shape == (0, 5)


def test_flip_directions_come_from_one_draw_with_the_stated_shares():
    image = np.zeros((4, 6, 3), np.uint8)
    kinds = [type(RandomFlipDirection().get_transform(image)).__name__ for _ in range(4000)]
    for kind in ("HFlipTransform", "VFlipTransform", "Rot90Transform", "NoOpTransform"):
        assert abs(kinds.count(kind) / 4000 - 0.25) < 0.03
    always = RandomFlipDirection(0, 0, 1).get_transform(image)
    assert always.apply_coords(np.array([[0.0, 0.0]])).tolist() == [[6, 4]]
    with pytest.raises(ValueError, match="sum to at most 1"):
        RandomFlipDirection(0.5, 0.5, 0.5)


def test_quarter_turn_shares():
    image = np.zeros((4, 6, 3), np.uint8)
    turns = [Random90Rotation().get_transform(image) for _ in range(4000)]
    counts = np.bincount([getattr(turn, "quarter_turns", 0) for turn in turns], minlength=4)
    assert (np.abs(counts / 4000 - 0.25) < 0.03).all()
    assert isinstance(Random90Rotation(0.0).get_transform(image), NoOpTransform)
    with pytest.raises(ValueError, match="prob"):
        Random90Rotation(2)


def test_object_crop_shows_an_object_and_stays_inside():
    image = np.zeros((200, 300, 3), np.uint8)
    corner = np.array([[[295, 195], [299, 195], [299, 199], [295, 199]]], float)
    for _ in range(50):
        crop = RandomObjectCrop((64, 80)).get_transform(image, corner)
        assert crop.x0 >= 0 and crop.x0 + 80 <= 300 and crop.y0 + 64 <= 200
        x, y = apply_transform_to_polygons(crop, corner).mean(axis=1)[0]
        assert 0 <= x < 80 and 0 <= y < 64


def test_object_crop_of_small_and_empty_images_and_objects_outside():
    image = np.zeros((20, 300, 3), np.uint8)
    outside = np.array([[[400, 5], [410, 5], [410, 9], [400, 9]]], float)
    for polygons in (np.zeros((0, 4, 2)), outside):
        crop = RandomObjectCrop((64, 80)).get_transform(image, polygons)
        assert (crop.h, crop.w, crop.y0) == (20, 80, 0) and 0 <= crop.x0 <= 220
    with pytest.raises(ValueError, match="crop_size"):
        RandomObjectCrop((0, 5))


@pytest.mark.parametrize(
    "augmentation",
    [
        RandomFlipDirection(),
        Random90Rotation(),
        RandomObjectCrop((40, 50)),
        T.RandomRotation([-180, 180]),
        T.RandomCrop("relative", (0.5, 0.5)),
        T.ResizeShortestEdge([60, 200], 300),
        T.ResizeScale(0.5, 2.0, 128, 128),
        T.RandomBrightness(0.8, 1.2),
        T.RandomExtent((0.5, 1.5), (0.2, 0.2)),
        T.FixedSizeCrop((64, 64)),
    ],
    ids=lambda a: type(a).__name__,
)
def test_augmentations_move_the_polygons_they_are_shown(augmentation):
    polygons = boxes_to_corners(random_rotated_boxes(20, 90, dtype=torch.float64)).numpy()
    aug_input = RotatedAugInput(np.zeros((HEIGHT, WIDTH, 3), np.uint8), polygons)
    transform = augmentation(aug_input)
    expected = apply_transform_to_polygons(transform, polygons)
    np.testing.assert_allclose(aug_input.polygons, expected)
