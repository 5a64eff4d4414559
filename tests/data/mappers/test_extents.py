"""The extent of an image: resizing leaves it as it is, cropping and padding change it."""

from __future__ import annotations

import numpy as np
import pytest
from detectron2.data import transforms as T

from rsd2.data.mappers.extents import image_extent, note_on_extent, usual_extents
from rsd2.data.mappers.photometric import RandomPhotometricDistortion
from rsd2.data.mappers.transforms import Random90Rotation, RandomFlipDirection, RandomObjectCrop


@pytest.mark.parametrize(
    ("augmentations", "extent"),
    [
        ([], 300),
        ([T.ResizeShortestEdge(80, 400)], 300),
        ([T.ResizeShortestEdge([60, 120], 400, "range"), Random90Rotation()], 300),
        ([RandomObjectCrop((64, 64))], 64),
        ([T.RandomCrop("absolute", (64, 96)), T.ResizeShortestEdge(128, 500)], 96),
        # A crop after resizing shows more of the data than it has pixels.
        ([T.ResizeShortestEdge(100, 400), RandomObjectCrop((50, 50))], 100),
        ([T.FixedSizeCrop((400, 400))], 400),
        ([T.RandomRotation([-180, 180], expand=False), RandomObjectCrop((64, 64))], 64),
        ([RandomFlipDirection(0.3, 0.3, 0.3), RandomPhotometricDistortion()], 300),
    ],
)
def test_the_extent_is_the_long_side_in_pixels_of_the_data(augmentations, extent):
    np.random.seed(0)
    measured = [image_extent(T.AugmentationList(augmentations), 200, 300) for _ in range(5)]
    # Sides are rounded to whole pixels when images are resized.
    assert measured == pytest.approx([extent] * 5, rel=0.01)


def test_extents_of_a_dataset_leave_out_what_is_rare():
    sizes = [(90, 100)] * 10 + [(90, 120)] * 10 + [(900, 4000)] * 1
    least, greatest = usual_extents([], sizes)
    assert (least, greatest) == (100, 120)
    assert usual_extents([], []) is None
    assert usual_extents([], [(50, 70)]) == (70, 70)


def test_a_note_names_both_extents_and_the_direction_of_the_fault():
    large = note_on_extent((256, 256), 600, "airport_test", "use windows of 256")
    assert "showed 256 pixels" in large and "now it shows 600 (airport_test)" in large
    assert "too large: use windows of 256" in large
    small = note_on_extent((400, 512), 300, "ports", "pad them")
    assert "400 to 512" in small and "too small: pad them" in small
    # Between, and a little outside, objects have sizes that training showed, too.
    assert not any(note_on_extent((400, 512), x, "", "") for x in (330, 400, 450, 512, 630))
    assert note_on_extent(None, 600, "", "") == ""
