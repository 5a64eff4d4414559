"""Every object once, where it is in the full image, whatever the windows."""

import numpy as np
import pytest
import torch

from rsd2.inference.sliding_window import WindowParameters, detect_in_windows, place_windows
from rsd2.ops import box_iou_rotated
from rsd2.structures import boxes_to_corners, canonicalize
from rsd2.testing import random_rotated_boxes

SIDE = 24  # longest object


class Finder:
    """A perfect detector of known objects, which finds out from the pixels where its tile lies.

    Pixel (x, y) of the image is (x % 256, y % 256, 16 * (y // 256) + x // 256). Objects that the
    tile does not show whole are missed, or with ``cut`` found as the part that it shows.
    """

    def __init__(self, boxes, classes=None, cut=False):
        self.boxes, self.cut = boxes.double(), cut
        zeros = torch.zeros(len(boxes), dtype=torch.int64)
        self.classes = zeros if classes is None else classes
        self.scores = 1 - torch.arange(len(boxes)) / (2 * max(len(boxes), 1))
        self.shapes, self.batches = [], []

    def __call__(self, images):
        self.batches.append(len(images))
        return [self.find(image) for image in images]

    def find(self, image):
        self.shapes.append(image.shape)
        x, y, blocks = image[0, 0].tolist()
        origin = torch.tensor([blocks % 16 * 256 + x, blocks // 16 * 256 + y]).double()
        size = torch.tensor([image.shape[1], image.shape[0]])
        corners = boxes_to_corners(self.boxes) - origin
        shown = ((corners >= 0) & (corners <= size)).all(dim=2).all(dim=1)
        local = self.boxes - torch.cat([origin, torch.zeros(3)])
        scores = self.scores.clone()
        if self.cut:
            low = torch.minimum(corners.amin(dim=1).clamp(min=0), size)
            high = torch.minimum(corners.amax(dim=1).clamp(min=0), size)
            sides = high - low
            part = torch.cat([(low + high) / 2, sides, torch.zeros(len(sides), 1)], dim=1)
            partial = ~shown & (sides > 4).all(dim=1)
            local[partial], scores[partial] = part[partial], scores[partial] / 10
            shown = shown | partial
        return local[shown].float(), scores[shown], self.classes[shown]


def coordinate_image(height, width):
    y, x = np.mgrid[:height, :width]
    return np.stack([x % 256, y % 256, 16 * (y // 256) + x // 256], axis=2).astype(np.uint8)


def spread_boxes(num, height, width, seed=0):
    """Boxes inside the image that overlap each other by no more than an IoU of 0.05."""
    boxes = random_rotated_boxes(40 * num, 1.0, 8, SIDE / 2, seed, torch.float64)
    boxes[:, :2] *= torch.tensor([width, height])
    boxes = canonicalize(boxes)
    corners = boxes_to_corners(boxes)
    limit = torch.tensor([width, height])
    boxes = boxes[((corners >= 0) & (corners <= limit)).all(dim=2).all(dim=1)]
    kept = boxes[:1]
    for box in boxes[1:]:
        if len(kept) < num and box_iou_rotated(box[None], kept).max() < 0.05:
            kept = torch.cat([kept, box[None]])
    assert len(kept) == num
    return kept


@pytest.mark.parametrize(
    ("size", "window", "overlap", "batch_size", "padding"),
    [
        ((300, 410), 1024, 200, 1, False),
        ((300, 410), 410, 30, 1, True),
        ((300, 410), 128, 40, 3, False),
        ((300, 410), 100, 50, 4, True),
        ((300, 410), 320, 24, 2, False),
        ((40, 700), 64, 32, 1, False),
        ((40, 700), 64, 32, 5, True),
        ((700, 40), 256, 25, 100, False),
    ],
)
def test_every_object_once_in_coordinates_of_the_image(size, window, overlap, batch_size, padding):
    boxes = spread_boxes(30, *size)
    classes = torch.arange(len(boxes)) % 3
    finder = Finder(boxes, classes)
    parameters = WindowParameters(
        window=window, overlap=overlap, batch_size=batch_size, padding=padding
    )
    found = detect_in_windows(coordinate_image(*size), finder, parameters)
    # The best score is the first box, so that the order of the results is that of the boxes.
    np.testing.assert_allclose(found.boxes, boxes.numpy(), atol=1e-4)
    assert found.classes.tolist() == classes.tolist()
    np.testing.assert_allclose(found.scores, finder.scores.numpy())
    assert found.num_windows == len(finder.shapes) == len(place_windows(*size, parameters))
    assert (found.num_merged > 0) == (found.num_windows > 1)
    assert max(finder.batches) <= batch_size and sum(finder.batches) == found.num_windows
    heights, widths, _ = zip(*finder.shapes)
    if padding:
        assert set(heights) == set(widths) == {window}
    else:
        assert set(heights) == {min(window, size[0])} and set(widths) == {min(window, size[1])}


def test_pieces_of_cut_objects_fall_to_the_whole_ones():
    boxes = torch.tensor([[64.0, 30, 16, 12, 0], [60, 70, 20, 10, 0]])  # at the border at x = 64
    image = coordinate_image(100, 128)
    found = detect_in_windows(image, Finder(boxes, cut=True), WindowParameters(64, 32))
    np.testing.assert_allclose(found.boxes, boxes.numpy(), atol=1e-4)
    kept = WindowParameters(64, 32, nms_threshold=None)
    assert len(detect_in_windows(image, Finder(boxes, cut=True), kept).boxes) > 2
    # With no overlap an object at the border is whole in no window and stays in two pieces.
    apart = detect_in_windows(image, Finder(boxes[:1], cut=True), WindowParameters(64, 0))
    assert sorted(apart.boxes[:, 0].tolist()) == [60, 68]


def test_classes_are_merged_apart_and_a_whole_image_is_left_alone():
    twins = torch.tensor([[40.0, 30, 16, 12, 0], [41, 30, 16, 12, 0]])
    image = coordinate_image(64, 100)
    cut, whole = WindowParameters(64, 32), WindowParameters(128, 32)
    assert len(detect_in_windows(image, Finder(twins), cut).boxes) == 1
    assert len(detect_in_windows(image, Finder(twins, torch.tensor([0, 1])), cut).boxes) == 2
    assert len(detect_in_windows(image, Finder(twins), whole).boxes) == 2


def test_what_is_left_out_is_counted():
    def detect(images):
        boxes = torch.tensor([[5.0, 5, 4, 2, 0], [float("nan"), 5, 4, 2, 0], [9, 9, 4, 2, 0]])
        return [(boxes, torch.tensor([0.9, 0.8, 0.2]), torch.zeros(3).long())] * len(images)

    image = np.zeros((20, 20, 3), dtype=np.uint8)
    found = detect_in_windows(image, detect, WindowParameters(32, 0, score_threshold=0.3))
    assert found.boxes.tolist() == [[5, 5, 4, 2, 0]]
    assert (found.num_non_finite, found.num_below_threshold, found.num_merged) == (1, 1, 0)


def test_no_object_in_the_smallest_image_and_progress():
    nothing = torch.zeros(0, 5)
    seen = []
    found = detect_in_windows(
        np.zeros((1, 1, 3), dtype=np.uint8),
        lambda images: [(nothing, torch.zeros(0), torch.zeros(0))] * len(images),
        WindowParameters(),
    )
    assert found.boxes.shape == (0, 5) and found.num_windows == 1
    detect_in_windows(
        coordinate_image(100, 100),
        Finder(nothing),
        WindowParameters(64, 32, batch_size=3),
        lambda *numbers: seen.append(numbers),
    )
    assert seen == [(3, 9), (6, 9), (9, 9)]


def test_far_windows_lose_no_precision():
    image = np.broadcast_to(np.zeros(3, dtype=np.uint8), (3000, 20000, 3))  # takes no memory

    def detect(images):
        one = (torch.tensor([[500.25, 500.5, 10, 4, 33.0]]), torch.ones(1), torch.zeros(1))
        return [one] * len(images)

    found = detect_in_windows(image, detect, WindowParameters(1000, 0, batch_size=4))
    expected = {(1000 * i + 500.25, 1000 * j + 500.5) for i in range(20) for j in range(3)}
    assert found.num_windows == len(found.boxes) == 60
    assert {tuple(box[:2]) for box in found.boxes.tolist()} == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 100, "overlap": 100}, "overlap must be in"),
        ({"overlap": -1}, "overlap must be in"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"score_threshold": 30}, r"score_threshold must be in \[0, 1\], got 30"),
        ({"nms_threshold": -0.1}, "nms_threshold must be in"),
    ],
)
def test_wrong_parameters_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        WindowParameters(**options)


def test_wrong_images_and_results_are_refused():
    with pytest.raises(ValueError, match=r"\(4, 4\) uint8"):
        detect_in_windows(np.zeros((4, 4), dtype=np.uint8), Finder, WindowParameters())
    with pytest.raises(ValueError, match="0 results for 1 images"):
        detect_in_windows(np.zeros((4, 4, 3), np.uint8), lambda images: [], WindowParameters())
