"""Views: resizing changes the scale of an image, cropping and padding its extent."""

from __future__ import annotations

import numpy as np
import pytest
from detectron2.data import transforms as T

from rsd2.data.mappers.photometric import RandomPhotometricDistortion
from rsd2.data.mappers.transforms import Random90Rotation, RandomFlipDirection, RandomObjectCrop
from rsd2.data.mappers.views import View, Views, note_on_view, usual_views, view_of


@pytest.mark.parametrize(
    ("augmentations", "extent", "scale"),
    [
        ([], 300, 1),
        ([T.ResizeShortestEdge(80, 400)], 300, 0.4),
        ([T.ResizeShortestEdge(80, 60), Random90Rotation()], 300, 0.2),
        ([RandomObjectCrop((64, 64))], 64, 1),
        ([T.RandomCrop("absolute", (64, 96)), T.ResizeShortestEdge(128, 500)], 96, 2),
        # A crop after resizing shows more of the data than it has pixels.
        ([T.ResizeShortestEdge(100, 400), RandomObjectCrop((50, 50))], 100, 0.5),
        ([T.FixedSizeCrop((400, 400))], 400, 1),
        ([T.RandomRotation([-180, 180], expand=False), RandomObjectCrop((64, 64))], 64, 1),
        ([RandomFlipDirection(0.3, 0.3, 0.3), RandomPhotometricDistortion()], 300, 1),
    ],
)
def test_extent_and_scale_are_those_of_the_data(augmentations, extent, scale):
    np.random.seed(0)
    for _ in range(5):
        seen = view_of(T.AugmentationList(augmentations), 200, 300)
        # Sides are rounded to whole pixels when images are resized.
        assert (seen.extent, seen.scale) == pytest.approx((extent, scale), rel=0.01)


def test_views_of_a_dataset_leave_out_what_is_rare():
    sizes = [(90, 100)] * 10 + [(90, 120)] * 10 + [(900, 4000)] * 1
    assert usual_views([], sizes) == Views((100, 120), (1, 1))
    assert usual_views([], []) is None
    assert usual_views([], [(50, 70)]).middle == View(70, 1)

    random = usual_views([T.ResizeShortestEdge([50, 100], 400, "range")], [(100, 200)] * 24)
    assert random.extents == pytest.approx((200, 200), rel=0.02)
    assert 0.5 <= random.scales[0] < 0.6 < 0.9 < random.scales[1] <= 1


def test_boxes_in_shares_are_compared_by_extent():
    def note(extent, trained=(400, 512), remedy="pad them"):
        seen = View(extent, scale=9)  # has no part in it
        return note_on_view(Views(trained, (1, 1)), seen, True, "airport_test", remedy)

    large = note(600, (256, 256), "use windows of 256")
    assert "showed 256 pixels" in large and "now it shows 600 (airport_test)" in large
    assert "too large: use windows of 256" in large
    small = note(300)
    assert "400 to 512" in small and "too small: pad them" in small
    # Between, and a little outside, objects have sizes that training showed, too.
    assert not any(map(note, (330, 400, 450, 512, 630)))


def test_boxes_in_pixels_are_compared_by_scale():
    def note(scale):
        seen = View(9999, scale)  # has no part in it
        return note_on_view(Views((512, 512), (0.5, 0.8)), seen, False, "windows", "others")

    assert "0.50 to 0.80 times" in note(0.31) and "at 0.31 (windows), too small" in note(0.31)
    assert "too large for what it has learned: others" in note(2)
    assert not any(map(note, (0.34, 0.5, 0.6, 0.8, 1.19)))
    assert note_on_view(None, View(1, 9), False, "", "") == ""
