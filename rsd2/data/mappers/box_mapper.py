"""Maps dataset dicts of upright boxes to a model's input: crops windows and erases regions.

Shapes: N objects, H, W height and width after augmentation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from detectron2.data import detection_utils
from detectron2.data import transforms as T
from detectron2.structures import BoxMode, Instances

from .image_mapper import ImageMapper, is_ignored, to_tensor


@dataclass(eq=False, kw_only=True)
class BoxDatasetMapper(ImageMapper):
    """Read, crop (virtual tiles), erase, augment and convert one image of a dataset of boxes.

    Detectron2's ``DatasetMapper`` knows neither windows nor regions to ignore. All randomness comes
    from ``np.random``. ``min_side`` 0 keeps all boxes that have an area.

    Attributes:
        erase_ignored: whether training paints every crowd and every box that is ``ignore``,
            ``uncertain`` or ``logo`` with its mean colour before augmentation, like TinyBenchmark's
            erased images, so that a detection there does not count as a mistake.
    """

    erase_ignored: bool = False

    def __call__(self, dataset_dict: dict) -> dict:
        """Map one dataset dict, which is not changed.

        Args:
            dataset_dict: a dict like those of ``load_coco_boxes``.

        Returns:
            the dict without ``annotations``, and ``image``: (3, H, W) uint8; in training
            ``instances``: ``gt_boxes`` (N, 4) ``Boxes`` in pixels of ``image``, cut at its border,
            ``gt_classes`` (N,) int64, N >= 0; without ignored regions. ``height`` and
            ``width`` stay those of the image or tile before augmentation.

        Raises:
            FileNotFoundError: if the image is missing.
            ValueError: if the image is broken or of another size than the dict says, or a box is
                not upright; the message names the file.
        """
        result = {key: value for key, value in dataset_dict.items() if key != "annotations"}
        annotations = dataset_dict.get("annotations", []) if self.is_train else []
        image = self.read(dataset_dict)
        boxes = stack_upright_boxes(annotations, dataset_dict["file_name"])

        ignored = np.array([is_ignored(annotation) for annotation in annotations], dtype=bool)
        if self.erase_ignored and ignored.any():
            image = erase_boxes(image, boxes[ignored])
        objects = [a for a, skip in zip(annotations, ignored) if not skip]

        aug_input = T.AugInput(image, boxes=boxes[~ignored])
        self.augment(aug_input)
        result["image"] = to_tensor(aug_input.image, self.image_format)

        if self.is_train:
            size = aug_input.image.shape[:2]
            result["instances"] = upright_instances(objects, aug_input.boxes, size, self.min_side)
        return result


def erase_boxes(image: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Paint each box with the mean colour of its pixels, one box after the other.

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


def stack_upright_boxes(annotations: Sequence[dict], file_name: str) -> np.ndarray:
    """Collect the boxes of annotations.

    Args:
        annotations: annotations of a dataset dict, with boxes in any of Detectron2's upright modes.
        file_name: path of the image, for the message.

    Returns:
        (N, 4) float64 x0, y0, x1, y1, pixels.

    Raises:
        ValueError: if a box is rotated.
    """
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


def upright_instances(
    annotations: Sequence[dict], boxes: np.ndarray, size: tuple[int, int], min_side: float
) -> Instances:
    """Wrap the objects that augmentation left, with their boxes cut at the image's border.

    Args:
        annotations: N annotations with ``category_id``.
        boxes: (N, 4) x0, y0, x1, y1 after augmentation, pixels.
        size: (height, width) of the image after augmentation.
        min_side: shortest side of a box that is kept, pixels; boxes without area never are.

    Returns:
        ``gt_boxes`` (K, 4) and ``gt_classes`` (K,), K <= N, in the order of the annotations.
    """
    cut = np.clip(boxes, 0, (size[1], size[0]) * 2)
    # The initial value stands for the least side where there are no objects.
    sides = (cut[:, 2:] - cut[:, :2]).min(axis=1, initial=np.inf)
    targets = [
        {"bbox": box, "bbox_mode": BoxMode.XYXY_ABS, "category_id": a["category_id"]}
        for a, box, side in zip(annotations, cut, sides)
        if side > 0 and side >= min_side
    ]
    return detection_utils.annotations_to_instances(targets, tuple(size))
