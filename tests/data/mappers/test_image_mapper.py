"""What mappers share: the images used last, the layout of tensors, what is no object."""

import numpy as np
import pytest
import torch

from rsd2.data.mappers.image_mapper import ImageMapper, RecentImages, is_ignored, to_tensor
from rsd2.geo.radiometry import Radiometry


@pytest.mark.parametrize(("size", "reads"), [(0, "abaac"), (1, "abac"), (2, "abc"), (3, "abc")])
def test_the_images_used_last_are_kept(size, reads):
    read = []
    recent = RecentImages(size)
    for name in "abaac":
        image = recent.get(name, lambda path: read.append(path) or np.full((1, 1, 3), ord(path)))
        assert image[0, 0, 0] == ord(name)
    assert "".join(read) == reads


def test_an_image_that_cannot_be_read_is_not_kept():
    def refuse(path):
        raise ValueError(path)

    recent = RecentImages(2)
    with pytest.raises(ValueError, match="broken"):
        recent.get("broken", refuse)
    assert recent.get("broken", lambda path: np.ones((1, 1, 3))).all()


def test_channels_come_first_in_the_order_asked_for():
    image = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    rgb, bgr = to_tensor(image), to_tensor(image, "BGR")
    assert rgb.shape == (3, 2, 4) and rgb.dtype == torch.uint8 and rgb.is_contiguous()
    assert rgb[:, 1, 2].tolist() == image[1, 2].tolist()
    assert torch.equal(bgr, rgb.flip(0))


def test_bands_in_the_order_of_the_radiometry_are_never_reversed():
    image = np.arange(32, dtype=np.uint8).reshape(2, 4, 4)
    assert to_tensor(image)[:, 0, 0].tolist() == [0, 1, 2, 3]
    rule = Radiometry(bands=(1, 2, 3, 4))
    for use in (
        lambda: to_tensor(image, "BGR"),
        lambda: ImageMapper(True, augmentations=[], image_format="BGR", radiometry=rule),
    ):
        with pytest.raises(ValueError, match="there are 4 bands; set it to 'RGB'"):
            use()


@pytest.mark.parametrize("flag", ["ignore", "iscrowd", "uncertain", "logo"])
def test_regions_to_ignore_are_no_objects(flag):
    assert is_ignored({flag: 1}) and not is_ignored({flag: 0}) and not is_ignored({})
