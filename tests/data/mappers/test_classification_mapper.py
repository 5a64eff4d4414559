"""Labelled images on their way to a classifier."""

import cv2
import numpy as np
import pytest
import torch
from detectron2.data import transforms as T

from rsd2.data.mappers.classification_mapper import (
    CenterCrop,
    ClassificationMapper,
    RandomResizedCrop,
    RandomShift,
)


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(1, 256, (20, 30, 3), dtype=np.uint8)


def test_maps_pixels_files_and_windows_alike(image, tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), image[:, :, ::-1])
    mapper = ClassificationMapper([])
    given = {"label": 3, "file_name": str(tmp_path / "a.png"), "image_id": 7}
    from_file = mapper(given)
    from_memory = mapper({**given, "pixels": image})
    assert from_file.keys() == {"image", "label", "file_name", "image_id"}
    assert from_file["label"] == 3 and from_file["image_id"] == 7
    expected = torch.from_numpy(image.transpose(2, 0, 1).copy())
    assert torch.equal(from_file["image"], expected)
    assert torch.equal(from_memory["image"], expected)
    part = mapper({**given, "window": [25, 5, 35, 15]})["image"]
    assert torch.equal(part[:, :, :5], expected[:, 5:15, 25:])
    assert len(part[:, :, 5:].flatten(1).unique(dim=1).T) == 1  # the padding beyond the border


def test_keeps_the_files_used_last_and_hands_out_copies(image, tmp_path, monkeypatch):
    names = [str(tmp_path / f"{letter}.png") for letter in "abc"]
    for name in names:
        cv2.imwrite(name, image)
    read = []
    monkeypatch.setattr(
        "rsd2.data.mappers.classification_mapper.read_image",
        lambda p: (read.append(p), image.copy())[1],
    )
    mapper = ClassificationMapper([], cached_images=2)
    for index in (0, 1, 0, 2, 0, 1):
        mapper({"file_name": names[index], "label": 0})["image"].zero_()
    assert read == [names[i] for i in (0, 1, 2, 1)]
    assert mapper({"file_name": names[0], "label": 0})["image"].any()
    with pytest.raises(ValueError, match="got -1"):
        ClassificationMapper([], cached_images=-1)


def test_an_absent_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.png"):
        ClassificationMapper([])({"file_name": str(tmp_path / "gone.png"), "label": 0})


def test_resized_crops_have_the_size_and_stay_inside(image):
    image[:] = np.arange(30, dtype=np.uint8)[None, :, None] + 10  # no 0, which padding would be
    for _ in range(30):
        transform = RandomResizedCrop(8, area=(0.1, 1.0)).get_transform(image)
        result = transform.apply_image(image)
        assert result.shape == (8, 8, 3) and result.min() >= 10 and result.max() <= 39
        crop = transform.transforms[0]
        assert 0.08 * 600 < crop.w * crop.h <= 600
        assert 0.65 < crop.w / crop.h < 1.55


def test_a_crop_that_never_fits_is_the_middle():
    image = np.zeros((4, 400, 3), dtype=np.uint8)
    crop = RandomResizedCrop(8, area=(1.0, 1.0)).get_transform(image).transforms[0]
    assert (crop.x0, crop.y0, crop.w, crop.h) == (198, 0, 4, 4)


def shifted(image, dx, dy):
    """The slow way: one pixel after the other."""
    result = np.zeros_like(image)
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            if 0 <= y + dy < image.shape[0] and 0 <= x + dx < image.shape[1]:
                result[y, x] = image[y + dy, x + dx]
    return result


def test_a_shift_moves_and_fills_with_black(image):
    seen = set()
    for _ in range(200):
        transform = RandomShift(2).get_transform(image)
        crop = transform.transforms[1]
        shift = (crop.x0 - 2, crop.y0 - 2)
        if shift not in seen:
            assert np.array_equal(transform.apply_image(image), shifted(image, *shift))
        seen.add(shift)
    assert seen == {(x, y) for x in range(-2, 3) for y in range(-2, 3)}


def test_the_middle_by_hand(image):
    result = CenterCrop(10).get_transform(image).apply_image(image)
    assert np.array_equal(result, image[5:15, 10:20])
    with pytest.raises(ValueError, match="30 x 20 pixels is smaller than the crop of 21"):
        CenterCrop(21).get_transform(image)


def test_augmentation_is_applied_in_order(image):
    mapper = ClassificationMapper([T.RandomFlip(prob=1.0), CenterCrop(10)])
    result = mapper({"pixels": image, "label": 0})["image"].numpy().transpose(1, 2, 0)
    assert np.array_equal(result, image[:, ::-1][5:15, 10:20])
