"""Crops for pre-training: boxes of any kind, one size of image, and a seed for the mask.

Shapes: N objects, H, W sides of the crop.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from detectron2.data import transforms as T
from detectron2.structures import BoxMode, Instances, RotatedBoxes

from rsd2.data.mappers.dataset_mapper import RotatedDatasetMapper
from rsd2.data.mappers.image_mapper import is_ignored
from rsd2.structures import canonicalize, from_horizontal, to_horizontal

BOX_KINDS = ("rotated", "upright")


@dataclass(eq=False, kw_only=True)
class CropDatasetMapper(RotatedDatasetMapper):
    """`RotatedDatasetMapper` for data sets of rotated and of upright boxes, that seeds the mask.

    Image and boxes go through the same augmentations, which have to give images of one size. What
    is to be ignored (crowds, uncertain objects) is no object. All randomness comes from
    ``np.random``, which ``rsd2.data.samplers`` seeds for each sample, so that neither crop nor mask
    depends on the number of workers.

    Attributes:
        min_visible: share of an object's area that the crop must show for it to count.
        box_kind: "rotated" boxes as they are, or "upright", the smallest upright ones around them.
        box_jitter: boxes move along their sides, and these change, by up to this share of them,
            uniformly, in [0, 1): to see what exact boxes are worth.
    """

    min_visible: float = 0.3
    box_kind: str = "rotated"
    box_jitter: float = 0.0

    def __post_init__(self) -> None:
        """Validate the arguments.

        Raises:
            ValueError: for a value out of range.
        """
        super().__post_init__()
        if self.box_kind not in BOX_KINDS or not 0 <= self.box_jitter < 1:
            raise ValueError(
                f"box_kind must be one of {BOX_KINDS} and box_jitter in [0, 1), got "
                f"{self.box_kind!r} and {self.box_jitter}"
            )

    def __call__(self, dataset_dict: dict) -> dict:
        """Map one dataset dict, which is not changed.

        Args:
            dataset_dict: see `RotatedDatasetMapper`; boxes in any of Detectron2's modes.

        Returns:
            as `RotatedDatasetMapper`, and ``mask_seed``, an integer >= 0, drawn last.
        """
        annotations = [
            _rotated(annotation)
            for annotation in dataset_dict.get("annotations", [])
            if not is_ignored(annotation)
        ]
        result = super().__call__({**dataset_dict, "annotations": annotations})

        # Drawn last: crop and boxes are those of a mapper that seeds no mask.
        result["mask_seed"] = int(np.random.randint(2**62))
        return result

    def make_instances(
        self,
        annotations: list[dict],
        boxes: np.ndarray,
        keep: np.ndarray,
        transform: T.TransformList,
        size: tuple[int, int],
    ) -> Instances:
        """The kept objects, of the wanted kind; see `RotatedDatasetMapper.make_instances`."""
        instances = super().make_instances(annotations, boxes, keep, transform, size)
        tensor = instances.gt_boxes.tensor

        if self.box_jitter:
            noise = np.random.uniform(-self.box_jitter, self.box_jitter, (len(tensor), 4))
            change = torch.from_numpy(noise).float() * tensor[:, 2:4].repeat(1, 2)
            along, across, width, height = change.unbind(1)

            # From the axes of the box to those of the image, whose y points down.
            cosine, sine = tensor[:, 4].deg2rad().cos(), tensor[:, 4].deg2rad().sin()
            x, y = cosine * along + sine * across, cosine * across - sine * along
            change = torch.stack([x, y, width, height, torch.zeros_like(x)], dim=1)
            tensor = canonicalize(tensor + change)

        if self.box_kind == "upright":
            tensor = from_horizontal(to_horizontal(tensor))
        instances.gt_boxes = RotatedBoxes(tensor)
        return instances


def _rotated(annotation: dict) -> dict:
    """The annotation with its box as a rotated one."""
    mode = annotation["bbox_mode"]
    if mode == BoxMode.XYWHA_ABS:
        return annotation
    x0, y0, x1, y1 = BoxMode.convert(list(annotation["bbox"]), mode, BoxMode.XYXY_ABS)
    box = [(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0, 0.0]
    return {**annotation, "bbox": box, "bbox_mode": BoxMode.XYWHA_ABS}
