"""Photometric distortion that is drawn once and applied alike to all frames of a clip.

Detectron2's ``RandomSaturation`` blends with the grey picture of the one image that it was drawn
for, which would print that frame into the others. Shapes: H, W image height and width.
"""

from __future__ import annotations

import cv2
import numpy as np
from detectron2.data import transforms as T
from fvcore.transforms.transform import Transform

_HUE_TURN = 360.0


class PhotometricTransform(Transform):
    """Brightness, contrast, saturation, hue and channel order, changed by fixed amounts.

    The order is brightness, contrast (if ``contrast_first``), saturation and hue in HSV, contrast
    (else), channels.
    """

    def __init__(
        self,
        *,
        brightness: float = 0.0,
        contrast: float = 1.0,
        contrast_first: bool = True,
        saturation: float = 1.0,
        hue: float = 0.0,
        channels: tuple[int, int, int] = (0, 1, 2),
        value_range: tuple[float, float] | None = (0.0, 255.0),
    ) -> None:
        """Fix the amounts.

        Args:
            brightness: number added to all values.
            contrast: factor of all values.
            contrast_first: whether contrast is changed before saturation and hue.
            saturation: factor of the saturation.
            hue: angle added to the hue, degrees.
            channels: channel of the input for each channel of the output.
            value_range: least and greatest value, to which the result is cut; None leaves it uncut.
        """
        super().__init__()
        self.brightness, self.contrast, self.contrast_first = brightness, contrast, contrast_first
        self.saturation, self.hue, self.channels = saturation, hue, tuple(channels)
        self.value_range = value_range

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        """Distort an image.

        Args:
            img: (H, W, 3), uint8 or floating point, BGR.

        Returns:
            (H, W, 3) float32.
        """
        image = img.astype(np.float32) + np.float32(self.brightness)
        if self.contrast_first:
            image *= np.float32(self.contrast)

        if self.saturation != 1.0 or self.hue != 0.0:
            # HSV cannot hold the negative values of normalised images, so some of them are lost.
            hsv = cv2.cvtColor(image, cv2.COLOR_BGR2HSV)
            hsv[:, :, 1] *= np.float32(self.saturation)
            hsv[:, :, 0] = (hsv[:, :, 0] + np.float32(self.hue)) % np.float32(_HUE_TURN)
            image = cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)

        if not self.contrast_first:
            image *= np.float32(self.contrast)
        image = image[:, :, self.channels] if self.channels != (0, 1, 2) else image
        return image if self.value_range is None else np.clip(image, *self.value_range)

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        """Return the points as they are.

        Args:
            coords: (K, 2) xy pixels.

        Returns:
            the same.
        """
        return coords

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        """Return a label map as it is.

        Args:
            segmentation: (H, W), any dtype.

        Returns:
            the same.
        """
        return segmentation


class RandomPhotometricDistortion(T.Augmentation):
    """Random brightness, contrast, saturation, hue and channel order, each with probability 0.5.

    The distortion of CenterNet's and SSD's training. Its numbers are meant for values of 0 to 255.
    """

    def __init__(
        self,
        brightness: float = 32.0,
        contrast: tuple[float, float] = (0.5, 1.5),
        saturation: tuple[float, float] = (0.5, 1.5),
        hue: float = 18.0,
        permute_channels: bool = True,
        value_range: tuple[float, float] | None = (0.0, 255.0),
    ) -> None:
        """Set the ranges.

        Args:
            brightness: greatest value added or subtracted, >= 0.
            contrast: least and greatest factor, > 0.
            saturation: least and greatest factor, > 0.
            hue: greatest turn, degrees, >= 0.
            permute_channels: whether the channels may be permuted.
            value_range: least and greatest value, to which results are cut; None leaves them uncut.

        Raises:
            ValueError: for a range whose ends are exchanged or not positive, or a negative number.
        """
        super().__init__()
        for name, (low, high) in (("contrast", contrast), ("saturation", saturation)):
            if not 0 < low <= high:
                raise ValueError(
                    f"{name} must be two numbers, 0 < least <= greatest, got {low, high}"
                )
        if brightness < 0 or hue < 0:
            raise ValueError(f"brightness and hue must be >= 0, got {brightness} and {hue}")

        self.brightness, self.hue = brightness, hue
        # Plain tuples, whatever kind of list a config gives.
        self.contrast = (contrast[0], contrast[1])
        self.saturation = (saturation[0], saturation[1])
        self.permute_channels, self.value_range = permute_channels, value_range

    def get_transform(self, image: np.ndarray) -> Transform:
        """Draw a distortion.

        Args:
            image: (H, W, 3), not looked at.

        Returns:
            the transform.
        """
        on = np.random.uniform(size=6) < 0.5
        draw = np.random.uniform
        # Drawn whether it is used or not: runs of one seed rely on the order of these draws.
        channels = tuple(np.random.permutation(3).tolist())

        return PhotometricTransform(
            brightness=draw(-self.brightness, self.brightness) if on[0] else 0.0,
            contrast=draw(*self.contrast) if on[1] else 1.0,
            contrast_first=bool(on[2]),
            saturation=draw(*self.saturation) if on[3] else 1.0,
            hue=draw(-self.hue, self.hue) if on[4] else 0.0,
            channels=channels if on[5] and self.permute_channels else (0, 1, 2),
            value_range=self.value_range,
        )
