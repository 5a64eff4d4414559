"""Maps dicts of labelled images to a classifier's input, and the usual augmentations.

Shapes: H, W height and width after augmentation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from detectron2.data import transforms as T
from fvcore.transforms.transform import CropTransform, PadTransform, Transform, TransformList

from rsd2.data.windows.tiling import crop_window
from rsd2.io.image_io import read_image

from .image_mapper import RecentImages, to_tensor


class ClassificationMapper:
    """Read, cut out, augment and convert one labelled image.

    All randomness comes from ``np.random``, which Detectron2 seeds in every loader worker.
    """

    def __init__(
        self, augmentations: Sequence[T.Augmentation | T.Transform], *, cached_images: int = 0
    ) -> None:
        """Set the pipeline up.

        Args:
            augmentations: augmentations of Detectron2 or of this module, applied in order; all
                images of a batch must get the same size.
            cached_images: number of decoded files that each worker keeps, the last used ones;
                useful if many windows are cut out of each file.

        Raises:
            ValueError: if ``cached_images`` is negative.
        """
        if cached_images < 0:
            raise ValueError(f"cached_images must be >= 0, got {cached_images}")
        self.augment = T.AugmentationList(list(augmentations))
        self._recent = RecentImages(cached_images)

    def __call__(self, dataset_dict: dict) -> dict:
        """Map one dict, which is not changed.

        Args:
            dataset_dict: ``label`` and either ``pixels`` (H0, W0, 3) uint8 RGB or ``file_name``;
                with ``window`` only that part of the image.

        Returns:
            ``image`` (3, H, W) uint8 RGB, ``label``, ``file_name``, ``image_id``.

        Raises:
            FileNotFoundError: if the image is missing.
            ValueError: if the image is broken; the message names the file.
        """
        image = dataset_dict.get("pixels")
        if image is None:
            image = self._recent.get(dataset_dict["file_name"], read_image)
        if "window" in dataset_dict:
            image = crop_window(image, np.array(dataset_dict["window"]))

        aug_input = T.AugInput(image)
        self.augment(aug_input)
        kept = {k: dataset_dict[k] for k in ("label", "file_name", "image_id") if k in dataset_dict}
        return {"image": to_tensor(aug_input.image), **kept}


class RandomResizedCrop(T.Augmentation):
    """Cut out a part of random area and shape, and resize it to a square.

    Source: "Going Deeper with Convolutions" (arXiv 1409.4842), section 6, as ResNets are trained.

    Args:
        size: side of the result, pixels.
        area: least and largest share of the image's area.
        aspect: least and largest width / height, drawn log-uniformly.
    """

    def __init__(
        self,
        size: int = 224,
        area: tuple[float, float] = (0.08, 1.0),
        aspect: tuple[float, float] = (3 / 4, 4 / 3),
    ) -> None:
        super().__init__()
        # Plain tuples, whatever kind of list a config gives.
        (least, greatest), (narrowest, widest) = area, aspect
        self.size, self.area, self.aspect = size, (least, greatest), (narrowest, widest)

    def get_transform(self, image: np.ndarray) -> Transform:
        """Draw a crop.

        Args:
            image: (H0, W0, 3).

        Returns:
            The crop and the resize; if none of ten drawn crops fits in, the middle of the image.
        """
        height, width = image.shape[:2]
        narrowest, widest = (math.log(value) for value in self.aspect)

        for _ in range(10):
            pixels = height * width * np.random.uniform(*self.area)
            # On a log scale, so that a shape and its transpose are equally likely.
            ratio = math.exp(np.random.uniform(narrowest, widest))
            w, h = round(math.sqrt(pixels * ratio)), round(math.sqrt(pixels / ratio))
            if 0 < w <= width and 0 < h <= height:
                x = np.random.randint(width - w + 1)
                y = np.random.randint(height - h + 1)
                break
        else:
            w = h = min(height, width)
            x, y = (width - w) // 2, (height - h) // 2

        return TransformList(
            [CropTransform(x, y, w, h), T.ResizeTransform(h, w, self.size, self.size)]
        )


class RandomShift(T.Augmentation):
    """Shift by a few pixels and fill with black: a random crop of the padded image.

    Source: "Deep Residual Learning" (arXiv 1512.03385), section 4.2, for images of 32 pixels.

    Args:
        pixels: greatest shift in each direction.
    """

    def __init__(self, pixels: int = 4) -> None:
        super().__init__()
        self.pixels = pixels

    def get_transform(self, image: np.ndarray) -> Transform:
        """Draw a shift.

        Args:
            image: (H0, W0, 3).

        Returns:
            Padding and crop.
        """
        height, width = image.shape[:2]
        p = self.pixels
        # A crop at (p, p) of the padded image is the image itself.
        x, y = np.random.randint(2 * p + 1, size=2)
        return TransformList(
            [PadTransform(p, p, p, p, width, height), CropTransform(int(x), int(y), width, height)]
        )


class CenterCrop(T.Augmentation):
    """Cut a square out of the middle.

    Args:
        size: side of the square, pixels; the image must be at least as large.
    """

    def __init__(self, size: int = 224) -> None:
        super().__init__()
        self.size = size

    def get_transform(self, image: np.ndarray) -> Transform:
        """Find the middle.

        Args:
            image: (H0, W0, 3).

        Returns:
            The crop.

        Raises:
            ValueError: if the image is smaller than the square.
        """
        height, width = image.shape[:2]
        if min(height, width) < self.size:
            raise ValueError(
                f"an image of {width} x {height} pixels is smaller than the crop of {self.size}"
            )
        corner = ((width - self.size) // 2, (height - self.size) // 2)
        return CropTransform(*corner, self.size, self.size)
