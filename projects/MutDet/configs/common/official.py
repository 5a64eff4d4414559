"""Quirks of the released program's detector, in pre-training and in fine-tuning."""

from detectron2.config import LazyCall as L

from rsd2.modeling import DetectorQuirks

detector_quirks = L(DetectorQuirks)(
    random_sampling_init=True,
    unswapped_at_45=True,
    mixed_l1_formats=True,
    multiplied_angle_noise=True,
    trained_empty_slots=True,
    boxes_per_axis=True,
)
