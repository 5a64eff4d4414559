"""What a model sees of its data: how much at once, and how large.

The extent of an image is its long side after all augmentations, in pixels of the data before them:
resizing leaves it as it is, cropping and padding change it. Its scale is the size of a pixel of the
data after the augmentations: only resizing changes it. A detector that measures boxes in shares of
its image, as a DETR does, has learned objects for images of one extent. Others, whose anchors are
in pixels, have learned them at some scales.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from detectron2.data import transforms as T

from .transforms import RotatedAugInput

Range = tuple[float, float]
"""Least and greatest value."""

# Objects of one class differ in size, so that a model has learned a little beside these ranges.
_EXTENT_TOLERANCE, _SCALE_TOLERANCE = 1.25, 1.5
_NUM_IMAGES = 24
_CORNERS = np.array([(0.0, 0.0), (1.0, 0.0), (0.0, 1.0)])


@dataclass(frozen=True)
class View:
    """What a model sees of one image.

    Attributes:
        extent: long side of what is seen, pixels of the data.
        scale: side of a pixel of the data in pixels of the model.
    """

    extent: float
    scale: float


@dataclass(frozen=True)
class Views:
    """What a model usually sees of the images of a dataset.

    Attributes:
        extents: long side of what is seen, pixels of the data.
        scales: side of a pixel of the data in pixels of the model.
    """

    extents: Range
    scales: Range

    @property
    def middle(self) -> View:
        """The view in the middle of both ranges."""
        return View(sum(self.extents) / 2, sum(self.scales) / 2)


def view_of(augmentations: T.AugmentationList, height: int, width: int) -> View:
    """Augment a blank image and measure what is seen of it.

    Args:
        augmentations: augmentations of a mapper; random ones draw from numpy's generator.
        height: height of the image before them, pixels, >= 1.
        width: width of the image before them, pixels, >= 1.

    Returns:
        The view.
    """
    blank = RotatedAugInput(np.zeros((height, width, 3), np.uint8))
    transforms = augmentations(blank)
    origin, right, down = transforms.apply_coords(_CORNERS.copy())
    # From the area of a pixel, whichever way the augmentations turn and flip it.
    scale = float(np.sqrt(abs(np.linalg.det(np.stack([right - origin, down - origin])))))
    return View(max(blank.image.shape[:2]) / scale, scale)


def usual_views(
    augmentations: Sequence[T.Augmentation | T.Transform], sizes: Sequence[tuple[int, int]]
) -> Views | None:
    """Measure what is seen of some images of a dataset, of each if these are few.

    Args:
        augmentations: augmentations of the mapper, in order.
        sizes: (height, width) of each image of the dataset before them, pixels.

    Returns:
        The views, without the least and the greatest twentieth; None without images.
    """
    chosen = [sizes[int(i)] for i in np.linspace(0, len(sizes) - 1, _NUM_IMAGES)] if sizes else []
    if not chosen:
        return None

    together = T.AugmentationList(list(augmentations))
    found = [view_of(together, height, width) for height, width in chosen]
    values = np.array([(one.extent, one.scale) for one in found])
    least, greatest = np.percentile(values, (5, 95), axis=0).tolist()
    return Views((least[0], greatest[0]), (least[1], greatest[1]))


def note_on_view(trained: Views | None, seen: View, in_shares: bool, what: str, remedy: str) -> str:
    """Describe a view in which objects have other sizes for a model than in its training.

    Args:
        trained: views of the training images; None if they are unknown.
        seen: view of the images now.
        in_shares: whether the model measures boxes in shares of its image, not in pixels.
        what: the images now, in words, like "windows of 1024 x 1024 pixels".
        remedy: what to do, in words.

    Returns:
        The sentences; empty if objects have the sizes of the training, or that is unknown.
    """
    if trained is None:
        return ""
    if in_shares:
        if _is_within(seen.extent, trained.extents, _EXTENT_TOLERANCE):
            return ""
        fault = "large" if seen.extent > trained.extents[1] else "small"
        return (
            "The model measures boxes in shares of its image. In training an image showed "
            f"{_shown(trained.extents, 0)} pixels of the data along its long side, now it shows "
            f"{seen.extent:.0f} ({what}), so that boxes come out too {fault}: {remedy}"
        )

    if _is_within(seen.scale, trained.scales, _SCALE_TOLERANCE):
        return ""
    fault = "small" if seen.scale < trained.scales[0] else "large"
    return (
        f"In training the model saw objects at {_shown(trained.scales, 2)} times their size in the "
        f"data, now it sees them at {seen.scale:.2f} ({what}), too {fault} for what it has "
        f"learned: {remedy}"
    )


def _is_within(value: float, usual: Range, tolerance: float) -> bool:
    return usual[0] / tolerance <= value <= usual[1] * tolerance


def _shown(usual: Range, digits: int) -> str:
    least, greatest = (f"{value:.{digits}f}" for value in usual)
    return least if least == greatest else f"{least} to {greatest}"
