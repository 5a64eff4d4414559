"""How much of its data a model sees at once.

The extent of an image is its long side after all augmentations, in pixels of the data before them.
Resizing leaves it as it is, cropping and padding change it. A detector that measures boxes in
shares of its image, as a DETR does, has learned the sizes of objects for images of one extent only.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from detectron2.data import transforms as T

from .transforms import RotatedAugInput

Extents = tuple[float, float]
"""Least and greatest usual extent of images, pixels of the data."""

# Objects differ in size by more than this, so that a model has learned these extents, too.
_TOLERANCE = 1.25
_NUM_IMAGES = 24
_CORNERS = np.array([(0.0, 0.0), (1.0, 0.0), (0.0, 1.0)])


def image_extent(augmentations: T.AugmentationList, height: int, width: int) -> float:
    """Augment a blank image and measure its extent.

    Args:
        augmentations: augmentations of a mapper; random ones draw from numpy's generator.
        height: height of the image before them, pixels, >= 1.
        width: width of the image before them, pixels, >= 1.

    Returns:
        The extent, pixels of the data.
    """
    blank = RotatedAugInput(np.zeros((height, width, 3), np.uint8))
    transforms = augmentations(blank)
    origin, right, down = transforms.apply_coords(_CORNERS.copy())
    # The area of a pixel after the augmentations, whichever way these turn and flip it.
    area = abs(np.linalg.det(np.stack([right - origin, down - origin])))
    return float(max(blank.image.shape[:2]) / np.sqrt(area))


def usual_extents(
    augmentations: Sequence[T.Augmentation | T.Transform], sizes: Sequence[tuple[int, int]]
) -> Extents | None:
    """Measure the extents of some images of a dataset, of all if these are few.

    Args:
        augmentations: augmentations of the mapper, in order.
        sizes: (height, width) of each image of the dataset before them, pixels.

    Returns:
        The extents, without the least and the greatest twentieth; None without images.
    """
    chosen = [sizes[int(i)] for i in np.linspace(0, len(sizes) - 1, _NUM_IMAGES)] if sizes else []
    if not chosen:
        return None

    together = T.AugmentationList(list(augmentations))
    found = [image_extent(together, height, width) for height, width in chosen]
    least, greatest = np.percentile(found, (5, 95))
    return float(least), float(greatest)


def note_on_extent(trained: Extents | None, shown: float, what: str, remedy: str) -> str:
    """Describe images whose extent a detector of boxes in shares has not learned.

    Args:
        trained: extents of the training images; None if they are unknown.
        shown: extent of the images now, pixels.
        what: the images now, in words, like "windows of --window 1024".
        remedy: what to do, in words.

    Returns:
        The sentences; empty if the extent is a usual one, or the training is unknown.
    """
    if trained is None or trained[0] / _TOLERANCE <= shown <= trained[1] * _TOLERANCE:
        return ""

    least, greatest = round(trained[0]), round(trained[1])
    usual = str(least) if least == greatest else f"{least} to {greatest}"
    fault = "large" if shown > trained[1] else "small"
    return (
        f"The model measures boxes in shares of its image. In training an image showed {usual} "
        f"pixels of the data along its long side, now it shows {shown:.0f} ({what}), so that boxes "
        f"come out too {fault}: {remedy}"
    )
