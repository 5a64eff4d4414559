"""Photometric distortion: each amount alone does what it says, and frames share one draw."""

from __future__ import annotations

import numpy as np
import pytest

from rsd2.data.mappers.photometric import PhotometricTransform, RandomPhotometricDistortion

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(40, 200, (5, 7, 3), dtype=np.uint8)


def test_nothing_changed_is_the_image() -> None:
    result = PhotometricTransform().apply_image(IMAGE)
    assert result.dtype == np.float32 and np.array_equal(result, IMAGE)


def test_brightness_contrast_and_channels_are_arithmetic() -> None:
    bright = PhotometricTransform(brightness=10.0, contrast=1.5, value_range=None)
    assert np.allclose(bright.apply_image(IMAGE), (IMAGE.astype(float) + 10) * 1.5)
    cut = PhotometricTransform(brightness=-100.0, contrast=3.0).apply_image(IMAGE)
    assert cut.min() == 0 and cut.max() == 255
    swapped = PhotometricTransform(channels=(2, 0, 1)).apply_image(IMAGE)
    assert np.array_equal(swapped[:, :, 0], IMAGE[:, :, 2])
    assert np.array_equal(swapped[:, :, 1], IMAGE[:, :, 0])


def test_hue_and_saturation_by_hand() -> None:
    red = np.array([[[0, 0, 200]]], dtype=np.uint8)  # BGR
    green = PhotometricTransform(hue=120.0).apply_image(red)
    assert np.allclose(green, [[[0, 200, 0]]], atol=0.01)
    pale = PhotometricTransform(saturation=0.5).apply_image(red)
    assert np.allclose(pale, [[[100, 100, 200]]], atol=0.01)
    grey = np.full((2, 2, 3), 77, dtype=np.uint8)
    assert np.allclose(PhotometricTransform(hue=50.0, saturation=1.4).apply_image(grey), 77)
    around = PhotometricTransform(hue=-90.0).apply_image(green.astype(np.uint8))
    assert np.allclose(around, PhotometricTransform(hue=30.0).apply_image(red), atol=1.0)


def test_contrast_comes_where_it_is_told_to() -> None:
    """Of a normalised image the order shows: HSV of negative values is no plain arithmetic."""
    image = np.array([[[-1.0, 0.5, 2.0]]], dtype=np.float32)
    options = {"contrast": 0.5, "saturation": 1.3, "hue": 10.0, "value_range": None}
    first = PhotometricTransform(contrast_first=True, **options).apply_image(image)
    last = PhotometricTransform(contrast_first=False, **options).apply_image(image)
    plain = PhotometricTransform(saturation=1.3, hue=10.0, value_range=None).apply_image(image)
    halved = PhotometricTransform(saturation=1.3, hue=10.0, value_range=None).apply_image(image / 2)
    assert np.allclose(last, plain * 0.5) and np.allclose(first, halved)


def test_input_is_not_changed() -> None:
    for image in (IMAGE.copy(), IMAGE.astype(np.float32)):
        before = image.copy()
        PhotometricTransform(brightness=5, contrast=1.2, hue=9).apply_image(image)
        assert np.array_equal(image, before)


def test_points_and_label_maps_stay() -> None:
    transform, points = PhotometricTransform(brightness=9.0), np.array([[1.0, 2.0]])
    assert transform.apply_coords(points) is points
    assert transform.apply_box(np.array([[1.0, 2.0, 3.0, 4.0]])).tolist() == [[1, 2, 3, 4]]
    labels = IMAGE[:, :, 0].copy()
    assert np.array_equal(transform.apply_segmentation(labels), IMAGE[:, :, 0])


def test_draws_stay_in_their_ranges_and_each_happens_half_the_time() -> None:
    np.random.seed(0)
    draws = [RandomPhotometricDistortion().get_transform(IMAGE) for _ in range(2000)]
    brightness = np.array([d.brightness for d in draws])
    assert np.abs(brightness).max() <= 32 and np.abs(brightness).max() > 30
    for name, neutral in (("brightness", 0), ("contrast", 1), ("saturation", 1), ("hue", 0)):
        assert np.mean([getattr(d, name) != neutral for d in draws]) == pytest.approx(0.5, abs=0.05)
    factors = np.array([(d.contrast, d.saturation) for d in draws])
    assert factors.min() >= 0.5 and factors.max() <= 1.5
    # a drawn permutation leaves the order once in six
    assert np.mean([d.channels != (0, 1, 2) for d in draws]) == pytest.approx(5 / 12, abs=0.05)
    assert all(
        d.channels == (0, 1, 2)
        for d in (
            RandomPhotometricDistortion(permute_channels=False).get_transform(IMAGE)
            for _ in range(20)
        )
    )


@pytest.mark.parametrize(
    "options", [{"contrast": (0.0, 1.0)}, {"saturation": (1.5, 0.5)}, {"hue": -1.0}]
)
def test_impossible_ranges_are_refused(options: dict) -> None:
    with pytest.raises(ValueError, match="must be"):
        RandomPhotometricDistortion(**options)
