"""Rotated boxes under Detectron2's transforms, and augmentations for images seen from above.

One rule serves every ``Transform`` that can move points: transform the four corners, fit a box to
them. It is exact for shifts, flips, rotations and uniform scaling; under shear or non-uniform
scaling the result is the smallest rectangle around the transformed one. Coordinates are continuous:
(0, 0) is the top-left corner of the top-left pixel, whose centre is (0.5, 0.5).

Shapes: N boxes, V vertices, H, W image height and width.
"""

from __future__ import annotations

import numpy as np
import torch
from detectron2.data import transforms as T
from fvcore.transforms.transform import (
    CropTransform,
    HFlipTransform,
    NoOpTransform,
    Transform,
    TransformList,
    VFlipTransform,
)

from rsd2.structures import boxes_to_corners, corners_to_boxes


def apply_transform_to_polygons(
    transform: Transform | TransformList, polygons: np.ndarray
) -> np.ndarray:
    """Move polygons as a transform moves the image.

    Args:
        transform: anything with ``apply_coords``.
        polygons: (N, V, 2) xy pixels of the image before the transform.

    Returns:
        (N, V, 2) float64 xy pixels of the image after it.
    """
    polygons = np.asarray(polygons, dtype=np.float64)
    # A copy, because several of Detectron2's transforms write into what they are given.
    points = np.array(polygons.reshape(-1, 2))
    moved = transform.apply_coords(points) if len(points) else points
    return np.asarray(moved, dtype=np.float64).reshape(polygons.shape)


def apply_transform_to_rotated_boxes(
    transform: Transform | TransformList, boxes: np.ndarray
) -> np.ndarray:
    """Move rotated boxes as a transform moves the image.

    Args:
        transform: anything with ``apply_coords``.
        boxes: (N, 5) cx, cy, w, h in pixels, angle in degrees.

    Returns:
        (N, 5) float64 canonical boxes.
    """
    tensor = torch.from_numpy(np.asarray(boxes, dtype=np.float64).reshape(-1, 5))
    moved = apply_transform_to_polygons(transform, boxes_to_corners(tensor).numpy())
    return corners_to_boxes(torch.from_numpy(moved)).numpy()


class RotatedAugInput(T.AugInput):
    """Input of augmentations of rotated data: ``image`` and ``polygons``.

    Attributes:
        image: (H, W, C) uint8.
        polygons: (N, 4, 2) float64 corners of the objects in pixels, moved along with the image.
    """

    image: np.ndarray

    def __init__(self, image: np.ndarray, polygons: np.ndarray | None = None) -> None:
        """Start from an image.

        Args:
            image: (H, W, C) uint8.
            polygons: (N, 4, 2) xy pixels; none if None.
        """
        super().__init__(image)
        self.polygons = np.zeros((0, 4, 2)) if polygons is None else polygons

    def transform(self, tfm: Transform | TransformList) -> None:
        """Apply a transform to image and polygons, in place.

        Args:
            tfm: anything with ``apply_image`` and ``apply_coords``.
        """
        image = self.image
        is_split = image.ndim == 3 and image.shape[2] not in (1, 3)
        if is_split and isinstance(tfm, T.ResizeTransform):
            # Pillow would take the last of two or four bands for opacity and darken the others
            # by it, and more than four it does not know at all.
            bands = [tfm.apply_image(band) for band in np.moveaxis(image, 2, 0)]
            self.image = np.stack(bands, axis=2)
        else:
            super().transform(tfm)
        self.polygons = apply_transform_to_polygons(tfm, self.polygons)


class Rot90Transform(Transform):
    """Turn an image by quarter turns, counter-clockwise on screen; no pixel is interpolated."""

    def __init__(self, h: int, w: int, quarter_turns: int) -> None:
        """Keep the image size.

        Args:
            h: height before, pixels.
            w: width before, pixels.
            quarter_turns: any integer.
        """
        super().__init__()
        self.h, self.w, self.quarter_turns = h, w, quarter_turns % 4

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        """Turn an image.

        Args:
            img: (H, W) or (H, W, C), any dtype.

        Returns:
            the turned image, contiguous; sides exchanged by odd numbers of turns.
        """
        return np.ascontiguousarray(np.rot90(img, self.quarter_turns))

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        """Turn points.

        Args:
            coords: (K, 2) xy pixels.

        Returns:
            (K, 2) xy pixels of the turned image.
        """
        x, y = coords[:, 0], coords[:, 1]
        turned = (
            (x, y),
            (y, self.w - x),
            (self.w - x, self.h - y),
            (self.h - y, x),
        )[self.quarter_turns]
        return np.stack(turned, axis=1)

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        """Turn a label map.

        Args:
            segmentation: (H, W), any dtype.

        Returns:
            the turned map.
        """
        return self.apply_image(segmentation)

    def inverse(self) -> Transform:
        """Return the turn back."""
        h, w = (self.h, self.w) if self.quarter_turns % 2 == 0 else (self.w, self.h)
        return Rot90Transform(h, w, -self.quarter_turns)


class RandomFlipDirection(T.Augmentation):
    """Flip left-right, upside down, both, or not at all, decided by a single draw.

    As the paper of MutDet does: one of three directions with 0.25 each, else none. (Detectron2's
    ``RandomFlip`` knows one direction; two of them in a row draw twice.)
    """

    def __init__(
        self, horizontal: float = 0.25, vertical: float = 0.25, diagonal: float = 0.25
    ) -> None:
        """Set the probabilities.

        Args:
            horizontal: probability of a left-right flip.
            vertical: probability of an upside-down flip.
            diagonal: probability of both together, a half turn. With the remaining probability the
                image stays as it is.

        Raises:
            ValueError: if they are negative or sum to more than 1.
        """
        super().__init__()
        if min(horizontal, vertical, diagonal) < 0 or horizontal + vertical + diagonal > 1 + 1e-9:
            raise ValueError(
                "Flip probabilities must be >= 0 and sum to at most 1, got "
                f"{horizontal}, {vertical}, {diagonal}."
            )
        self.horizontal, self.vertical, self.diagonal = horizontal, vertical, diagonal

    def get_transform(self, image: np.ndarray) -> Transform | TransformList:
        """Draw a flip.

        Args:
            image: (H, W, C).

        Returns:
            the flip, or a ``NoOpTransform``.
        """
        height, width = image.shape[:2]

        # One draw for all, so that the probabilities exclude each other and add up.
        draw = np.random.uniform()
        if draw < self.horizontal:
            return HFlipTransform(width)
        if draw < self.horizontal + self.vertical:
            return VFlipTransform(height)
        if draw < self.horizontal + self.vertical + self.diagonal:
            return Rot90Transform(height, width, 2)
        return NoOpTransform()


class Random90Rotation(T.Augmentation):
    """Turn by 90, 180 or 270 degrees, equally often, or leave the image alone."""

    def __init__(self, prob: float = 0.75) -> None:
        """Set the probability.

        Args:
            prob: probability of turning at all, in [0, 1]; 0.75 makes all four directions equally
                frequent.

        Raises:
            ValueError: if it is not in [0, 1].
        """
        super().__init__()
        if not 0 <= prob <= 1:
            raise ValueError(f"prob must be in [0, 1], got {prob}.")
        self.prob = prob

    def get_transform(self, image: np.ndarray) -> Transform:
        """Draw a turn.

        Args:
            image: (H, W, C).

        Returns:
            the turn, or a ``NoOpTransform``.
        """
        if np.random.uniform() >= self.prob:
            return NoOpTransform()

        height, width = image.shape[:2]
        return Rot90Transform(height, width, int(np.random.randint(1, 4)))


class RandomObjectCrop(T.Augmentation):
    """Crop a window that shows an object, so that sparse images are not mostly cut to background.

    An object is drawn uniformly, then a window uniformly among those inside the image that show
    the object's centre. Images without objects, and a share ``1 - object_prob`` of the others, get
    a uniform window. An image smaller than the window is left whole in that direction.
    """

    def __init__(self, crop_size: tuple[int, int], object_prob: float = 1.0) -> None:
        """Set the window.

        Args:
            crop_size: (height, width) in pixels, >= 1.
            object_prob: share of crops that aim at an object, in [0, 1].

        Raises:
            ValueError: for a window without pixels or a share outside [0, 1].
        """
        super().__init__()
        if min(crop_size) < 1 or not 0 <= object_prob <= 1:
            raise ValueError(
                "crop_size must be at least 1 x 1 and object_prob in [0, 1], got "
                f"{crop_size} and {object_prob}."
            )
        self.crop_size, self.object_prob = tuple(crop_size), object_prob

    def get_transform(self, image: np.ndarray, polygons: np.ndarray) -> Transform:
        """Draw a window.

        Args:
            image: (H, W, C).
            polygons: (N, 4, 2) xy pixels.

        Returns:
            the crop.
        """
        height, width = image.shape[:2]
        centers = polygons.mean(axis=1)
        inside = ((centers >= 0) & (centers < (width, height))).all(axis=1)

        center = None
        if inside.any() and np.random.uniform() < self.object_prob:
            center = centers[inside][np.random.randint(int(inside.sum()))]

        crop_h, crop_w = min(self.crop_size[0], height), min(self.crop_size[1], width)
        x0 = _draw_start(width, crop_w, None if center is None else center[0])
        y0 = _draw_start(height, crop_h, None if center is None else center[1])
        return CropTransform(x0, y0, crop_w, crop_h, orig_w=width, orig_h=height)


def _draw_start(side: int, crop: int, center: float | None) -> int:
    """Draw the first pixel of a window along one axis such that it holds ``center``, if given."""
    low, high = 0, side - crop

    # The pixel that holds the centre is the last of the first window and the first of the last.
    if center is not None:
        low, high = max(low, int(np.floor(center)) - crop + 1), min(high, int(np.floor(center)))
    return int(np.random.randint(low, high + 1))
