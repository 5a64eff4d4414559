"""What the released program of the detector does otherwise than its paper, or by mistake."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DetectorQuirks:
    """Behaviour of the official ARS-DETR program that `RotatedDeformableDETR` can reproduce.

    The detector, its decoder and its matcher take the same object; a config gives it to the
    detector, and the parts follow by interpolation: ``quirks="${..quirks}"``.

    Attributes:
        random_sampling_init: start the decoder's sampling matrices from xavier noise instead of
            zeros, as the official program ends up doing.
        unswapped_at_45: at exactly -45 degrees (+45 clockwise) turn a reference box by 90 degrees
            without swapping its sides, see `fold_angles`.
        mixed_l1_formats: the matcher's L1 cost compares corners (x1, y1, x2, y2) of the prediction
            with (cx, cy, w, h) of the object.
        multiplied_angle_noise: denoising multiplies angles by 1 +- noise instead of adding: next
            to no noise, and none at 0 degrees.
        trained_empty_slots: denoising slots without an object attend and are trained as
            background.
        boxes_per_axis: divide x by the width and y by the height of the image, and scale
            detections by the width alone. It changes nothing on square images.
    """

    random_sampling_init: bool = False
    unswapped_at_45: bool = False
    mixed_l1_formats: bool = False
    multiplied_angle_noise: bool = False
    trained_empty_slots: bool = False
    boxes_per_axis: bool = False


NO_QUIRKS = DetectorQuirks()
"""The sane behaviour."""
