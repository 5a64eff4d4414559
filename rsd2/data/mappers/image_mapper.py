"""Parts that all mappers share: a cache of decoded images, cutting of virtual tiles, tensors.

Shapes: H, W height and width of an image.
"""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.data import transforms as T

from rsd2.data.dataset_dicts import check_record
from rsd2.data.windows.tiling import PAD_COLOR, crop_window
from rsd2.geo.radiometry import Radiometry
from rsd2.io.files import replaced_file
from rsd2.io.image_io import read_image

from .raster_windows import RasterWindows

_IGNORE_FLAGS = ("ignore", "iscrowd", "uncertain", "logo")


class RecentImages:
    """Cache of the decoded images that a worker used last."""

    def __init__(self, size: int) -> None:
        """Start empty.

        Args:
            size: number of images to keep, >= 0.
        """
        self.size = size
        self._images: OrderedDict[str, np.ndarray] = OrderedDict()

    def get(self, path: str, read: Callable[[str], np.ndarray]) -> np.ndarray:
        """Return an image from memory, or read it.

        Args:
            path: path of the file.
            read: function that decodes the file; an image that it cannot decode is not kept.

        Returns:
            (H, W, 3) uint8, which belongs to the cache: do not write into it.
        """
        image = self._images.pop(path, None)
        if image is None:
            image = read(path)

        # The last key is the most recent; the first one is the least recent and is dropped.
        self._images[path] = image
        while len(self._images) > self.size:
            self._images.popitem(last=False)
        return image


@dataclass(eq=False)
class ImageMapper:
    """Arguments and reading of the mappers that turn one image and its boxes into tensors.

    Attributes:
        is_train: whether annotations are wanted; without, they are left out.
        augmentations: transforms and augmentations, applied in order.
        image_format: channel order of the output, ``"RGB"`` or ``"BGR"``.
        min_side: objects whose shorter side is below this many pixels after augmentation are left
            out; 0 keeps all.
        pad_color: RGB colour of a virtual tile beyond its image.
        cached_images: number of decoded full images that each worker keeps for virtual tiles; >= 0.
            It serves the orderly walk of a test loader.
        decoded_cache_dir: folder for decoded full images (.npy, 3 bytes for each pixel) that all
            workers map into memory; made on demand. It serves the shuffled walk of a training
            loader over virtual tiles, which else decodes a full image for each tile.
        radiometry: rule that turns the numbers of rasters into colours, the same in training and
            prediction. All images are then read window by window through GDAL. With None, only the
            scenes of ``register_scenes`` are, by their own rule.
    """

    is_train: bool
    _: KW_ONLY
    augmentations: Sequence[T.Augmentation | T.Transform]
    image_format: str = "RGB"
    min_side: float = 0.0
    pad_color: tuple[int, int, int] = PAD_COLOR
    cached_images: int = 1
    decoded_cache_dir: str | Path | None = None
    radiometry: Radiometry | None = None

    def __post_init__(self) -> None:
        """Validate the arguments.

        Raises:
            ValueError: for a value out of range.
        """
        bands = None if self.radiometry is None else self.radiometry.bands
        check_channel_order(self.image_format, 3 if bands is None else len(bands))
        if self.min_side < 0 or self.cached_images < 0:
            raise ValueError(
                "min_side and cached_images must be >= 0, got "
                f"{self.min_side} and {self.cached_images}."
            )

        self.augment = T.AugmentationList(list(self.augmentations))
        self._recent = RecentImages(self.cached_images)
        self._rasters = RasterWindows(self.radiometry)

    def read(self, dataset_dict: Mapping[str, Any]) -> np.ndarray:
        """Read an image or cut a virtual tile, after a check of the image's size.

        Args:
            dataset_dict: ``file_name``, ``height`` and ``width``; ``tile`` for tiles; ``raster``
                for scenes.

        Returns:
            (H, W, 3) uint8 RGB; do not write into it. Of a scene (H, W, B) as its radiometry says.

        Raises:
            FileNotFoundError: if the image is missing.
            ValueError: if the image is broken or of another size than the dict says.
        """
        check_record(dataset_dict, "file_name", "height", "width")
        if "raster" in dataset_dict or self.radiometry is not None:
            return self._rasters.read(dataset_dict)

        path, tile = dataset_dict["file_name"], dataset_dict.get("tile")
        if not (tile and tile["virtual"]):
            image = read_image(path)
            _check_size(path, image, (dataset_dict["height"], dataset_dict["width"]))
            return image

        decode = read_image if self.decoded_cache_dir is None else self._map_decoded
        image = self._recent.get(path, decode)
        if "source_height" in tile:
            _check_size(path, image, (tile["source_height"], tile["source_width"]))
        window = (tile["x"], tile["y"], tile["x"] + tile["width"], tile["y"] + tile["height"])
        return crop_window(image, np.array(window), tuple(self.pad_color))

    def _map_decoded(self, path: str) -> np.ndarray:
        """Return a memory map of the decoded copy; a change of the image file renews the copy."""
        status = os.stat(path)
        identity = f"{os.path.abspath(path)}|{status.st_size}|{status.st_mtime_ns}"
        name = f"{Path(path).stem}-{hashlib.sha1(identity.encode()).hexdigest()[:16]}.npy"
        copy = Path(self.decoded_cache_dir or "") / name

        if not copy.is_file():
            copy.parent.mkdir(parents=True, exist_ok=True)
            pixels = read_image(path)
            # Several workers may decode one image at once; each writes its own temporary file.
            with replaced_file(copy, os.getpid()) as temporary, temporary.open("wb") as stream:
                np.save(stream, pixels)
        return np.load(copy, mmap_mode="r")


def check_channel_order(image_format: str, num_channels: int) -> None:
    """Check a channel order, which says nothing about other bands than red, green and blue.

    Args:
        image_format: ``"RGB"``, the order of what is read, or ``"BGR"``, the reverse.
        num_channels: number of channels of the images.

    Raises:
        ValueError: another order, or the reverse of bands that the radiometry has put in order.
    """
    if image_format not in ("RGB", "BGR"):
        raise ValueError(f"image_format must be 'RGB' or 'BGR', got {image_format!r}.")
    if image_format == "BGR" and num_channels not in (1, 3):
        raise ValueError(
            f"image_format 'BGR' is for red, green and blue, but there are {num_channels} bands; "
            "set it to 'RGB', which keeps the order of the radiometry's bands."
        )


def to_tensor(image: np.ndarray, image_format: str = "RGB") -> torch.Tensor:
    """Copy an image into the layout that models take.

    Args:
        image: (H, W, C) of any dtype; RGB if C is 3.
        image_format: channel order of the result, ``"RGB"`` or ``"BGR"``.

    Returns:
        (C, H, W) of the same dtype, contiguous.

    Raises:
        ValueError: see `check_channel_order`.
    """
    check_channel_order(image_format, image.shape[2])
    pixels = image[:, :, ::-1] if image_format == "BGR" else image
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def is_ignored(annotation: Mapping[str, Any]) -> bool:
    """Tell whether an annotation marks a region to ignore, not an object.

    Args:
        annotation: annotation of a dataset dict.

    Returns:
        True for regions to ignore, crowds, uncertain objects and logos.
    """
    return any(annotation.get(flag, False) for flag in _IGNORE_FLAGS)


def _check_size(path: str, image: np.ndarray, expected: tuple[int, int]) -> None:
    if image.shape[:2] != tuple(expected):
        raise ValueError(
            f"Image {path} has {image.shape[1]} x {image.shape[0]} pixels, but its dataset says "
            f"{expected[1]} x {expected[0]}; the file has changed since the dataset was read, or "
            "its labels belong to another image. Register the dataset anew."
        )
