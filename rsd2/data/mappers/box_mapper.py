"""From a dataset dict of upright boxes to what a model takes: windows cropped, regions erased.

Shapes: N objects, H, W height and width after augmentation.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from detectron2.data import detection_utils
from detectron2.data import transforms as T
from detectron2.structures import BoxMode

from rsd2.data.windows.tiling import PAD_COLOR

from .dataset_mapper import RotatedDatasetMapper

_IGNORED = ("ignore", "uncertain", "logo")


class BoxDatasetMapper(RotatedDatasetMapper):
    """Read, crop (virtual tiles), erase, augment and convert one image of a data set of boxes.

    Detectron2's ``DatasetMapper`` knows neither windows nor regions to ignore. Reading, with its
    caches and checks, is that of ``RotatedDatasetMapper``; all randomness comes from ``np.random``.
    """

    def __init__(
        self,
        is_train: bool,
        *,
        augmentations: Sequence[T.Augmentation | T.Transform],
        image_format: str = "RGB",
        erase_ignored: bool = False,
        min_side: float = 0.0,
        pad_color: tuple[int, int, int] = PAD_COLOR,
        cached_images: int = 1,
        decoded_cache_dir: str | Path | None = None,
    ) -> None:
        """Set the pipeline up.

        Args:
            is_train: with annotations; without, they are left out.
            augmentations: of Detectron2, applied in order.
            image_format: channel order of the output, ``"RGB"`` or ``"BGR"``.
            erase_ignored: in training, paint every box that is ``ignore``, ``uncertain`` or
                ``logo`` with its mean colour before augmentation, as TinyBenchmark's erased images
                are, so that a find there is no mistake.
            min_side: boxes whose shorter side is below this many pixels after augmentation are
                left out; 0 keeps all that have an area.
            pad_color: RGB of what a virtual tile shows beyond its image.
            cached_images: see ``RotatedDatasetMapper``.
            decoded_cache_dir: see ``RotatedDatasetMapper``.

        Raises:
            ValueError: for a value out of range.
        """
        super().__init__(
            is_train,
            augmentations=augmentations,
            image_format=image_format,
            min_side=min_side,
            pad_color=pad_color,
            cached_images=cached_images,
            decoded_cache_dir=decoded_cache_dir,
        )
        self.erase_ignored = erase_ignored

    def __call__(self, dataset_dict: dict) -> dict:
        """Map one dataset dict, which is not changed.

        Args:
            dataset_dict: as of ``load_coco_boxes``.

        Returns:
            the dict without ``annotations``, and ``image``: (3, H, W) uint8; in training
            ``instances``: ``gt_boxes`` (N, 4) ``Boxes`` in pixels of ``image``, cut at its border,
            ``gt_classes`` (N,) int64, N >= 0; without what is to be ignored. ``height`` and
            ``width`` stay those of the image or tile before augmentation.

        Raises:
            FileNotFoundError: if the image is not there.
            ValueError: if it is broken or of another size than the dict says, or a box is no
                upright one; the message names the file.
        """
        result = {key: value for key, value in dataset_dict.items() if key != "annotations"}
        annotations = dataset_dict.get("annotations", []) if self.is_train else []
        image = self._read(dataset_dict)
        boxes = _stack_boxes(annotations, dataset_dict["file_name"])
        ignored = np.array(
            [any(a.get(k, False) for k in _IGNORED) for a in annotations], dtype=bool
        )
        if self.erase_ignored and ignored.any():
            image = erase_boxes(image, boxes[ignored])
        aug_input = T.AugInput(image, boxes=boxes[~ignored])
        self.augmentations(aug_input)
        pixels = aug_input.image
        if self.image_format == "BGR":
            pixels = pixels[:, :, ::-1]
        result["image"] = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
        if self.is_train:
            size = aug_input.image.shape[:2]
            kept = [a for a, skip in zip(annotations, ignored) if not skip]
            moved = np.clip(aug_input.boxes, 0, (size[1], size[0]) * 2)
            sides = (moved[:, 2:] - moved[:, :2]).min(axis=1, initial=np.inf)
            targets = [
                {"bbox": box, "bbox_mode": BoxMode.XYXY_ABS, "category_id": a["category_id"]}
                for a, box, side in zip(kept, moved, sides)
                if side > 0 and side >= self.min_side
            ]
            result["instances"] = detection_utils.annotations_to_instances(targets, size)
        return result


def erase_boxes(image: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Paint boxes with the mean colour of what they show, one after the other.

    Args:
        image: (H, W, 3) uint8; not changed.
        boxes: (N, 4) x0, y0, x1, y1, pixels; whole pixels that they touch are painted.

    Returns:
        (H, W, 3) uint8.
    """
    erased = np.array(image)
    for x0, y0, x1, y1 in boxes:
        rows = slice(max(int(np.floor(y0)), 0), max(int(np.ceil(y1)), 0))
        columns = slice(max(int(np.floor(x0)), 0), max(int(np.ceil(x1)), 0))
        region = erased[rows, columns]
        if region.size:
            region[:] = np.rint(region.reshape(-1, 3).mean(axis=0))
    return erased


def _stack_boxes(annotations: list[dict], file_name: str) -> np.ndarray:
    """(N, 4) float64 x0, y0, x1, y1, refusing rotated boxes."""
    for annotation in annotations:
        if len(annotation["bbox"]) != 4:
            raise ValueError(
                f"The annotations of {file_name} hold a box {list(annotation['bbox'])}, which is "
                "no upright one; use RotatedDatasetMapper."
            )
    boxes = [
        BoxMode.convert(list(a["bbox"]), a["bbox_mode"], BoxMode.XYXY_ABS) for a in annotations
    ]
    return np.array(boxes, dtype=np.float64).reshape(-1, 4)
