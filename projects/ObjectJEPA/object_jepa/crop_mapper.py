"""Crops for pre-training: boxes of any kind, one size of image, and a seed for the mask.

Shapes: N objects, H, W sides of the crop.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from detectron2.data import transforms as T
from detectron2.structures import BoxMode, Instances, RotatedBoxes

from rsd2.data.mappers.dataset_mapper import RotatedDatasetMapper
from rsd2.data.windows.tiling import PAD_COLOR
from rsd2.structures import canonicalize, from_horizontal, to_horizontal

BOX_KINDS = ("rotated", "upright")
_IGNORED = ("ignore", "uncertain", "logo")


class CropDatasetMapper(RotatedDatasetMapper):
    """`RotatedDatasetMapper` for data sets of rotated and of upright boxes, that seeds the mask.

    Image and boxes go through the same augmentations. What is to be ignored (crowds, uncertain
    objects) is no object. All randomness comes from ``np.random``, which
    ``rsd2.data.samplers`` seeds for each sample, so that neither crop nor mask depends on the
    number of workers.
    """

    def __init__(
        self,
        is_train: bool,
        *,
        augmentations: Sequence[T.Augmentation | T.Transform],
        image_format: str = "RGB",
        min_visible: float = 0.3,
        min_side: float = 0.0,
        box_kind: str = "rotated",
        box_jitter: float = 0.0,
        pad_color: tuple[int, int, int] = PAD_COLOR,
        cached_images: int = 1,
        decoded_cache_dir: str | Path | None = None,
    ) -> None:
        """Set the pipeline up.

        Args:
            is_train: see `RotatedDatasetMapper`, as all others without a word here.
            augmentations: applied in order; they have to give images of one size.
            image_format: "RGB" or "BGR".
            min_visible: share of an object's area that the crop must show for it to count.
            min_side: in pixels; objects with a shorter side are left out.
            box_kind: "rotated" boxes as they are, or "upright", the smallest upright ones around
                them.
            box_jitter: boxes move along their sides, and these change, by up to this share of
                them, uniformly, in [0, 1): to see what exact boxes are worth.
            pad_color: RGB of what a virtual tile shows beyond its image.
            cached_images: decoded full images kept by each worker.
            decoded_cache_dir: folder for decoded full images.

        Raises:
            ValueError: for a value out of range.
        """
        super().__init__(
            is_train,
            augmentations=augmentations,
            image_format=image_format,
            min_visible=min_visible,
            min_side=min_side,
            pad_color=pad_color,
            cached_images=cached_images,
            decoded_cache_dir=decoded_cache_dir,
        )
        if box_kind not in BOX_KINDS or not 0 <= box_jitter < 1:
            raise ValueError(
                f"box_kind must be one of {BOX_KINDS} and box_jitter in [0, 1), got {box_kind!r} "
                f"and {box_jitter}"
            )
        self.box_kind, self.box_jitter = box_kind, box_jitter

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
            if not any(annotation.get(key, False) for key in _IGNORED)
        ]
        result = super().__call__({**dataset_dict, "annotations": annotations})
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
