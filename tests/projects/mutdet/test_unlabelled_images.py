"""Copies of the images of datasets: no larger, no more than asked, and not made twice."""

import json

import cv2
import numpy as np
import pytest

from rsd2.projects.mutdet.unlabelled_images import PAGE, copy_images


@pytest.fixture
def dataset(tmp_path, register):
    """Seven images of 60 x 30 pixels, the k-th of colour k."""
    records = []
    for k in range(7):
        path = tmp_path / f"{k}.png"
        cv2.imwrite(str(path), np.full((30, 60, 3), 10 * k, np.uint8))
        records.append({"file_name": str(path), "height": 30, "width": 60, "image_id": f"a/{k}"})
    return register("toy_images", records)


def test_images_are_shrunk_and_evenly_spaced(tmp_path, dataset):
    output = tmp_path / "out"
    assert copy_images({dataset: 3}, output, size=20) == {dataset: 3}
    assert json.loads((output / PAGE).read_text()) == {dataset: 3}
    names = sorted(path.name for path in (output / dataset).iterdir())
    assert names == ["a_0.png", "a_3.png", "a_6.png"]
    images = [cv2.imread(str(output / dataset / name)) for name in names]
    assert [image.shape for image in images] == [(10, 20, 3)] * 3
    assert [int(image.mean()) for image in images] == [0, 30, 60]


def test_what_is_there_is_kept_and_small_images_keep_their_size(tmp_path, dataset):
    output = tmp_path / "out"
    copy_images({dataset: None}, output, size=100)
    first = output / dataset / "a_0.png"
    assert cv2.imread(str(first)).shape == (30, 60, 3)
    time = first.stat().st_mtime_ns
    assert copy_images({dataset: None}, output, size=100) == {dataset: 7}
    assert first.stat().st_mtime_ns == time


def test_bad_arguments_are_refused(tmp_path, dataset):
    with pytest.raises(ValueError, match="no datasets .'nowhere'. are registered"):
        copy_images({"nowhere": None}, tmp_path, size=20)
    with pytest.raises(ValueError, match="at least 1"):
        copy_images({dataset: 0}, tmp_path, size=20)
