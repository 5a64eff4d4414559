"""Maps dataset dicts to a model's input: an image tensor and ``Instances`` of rotated boxes.

Shapes: N objects, H, W height and width after augmentation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from detectron2.data import transforms as T
from detectron2.structures import BoxMode, Instances, RotatedBoxes

from rsd2.data.dataset_dicts import polygon_of
from rsd2.data.windows.tiling import visible_fractions
from rsd2.structures import boxes_to_corners, canonicalize

from .image_mapper import ImageMapper, to_tensor
from .transforms import (
    RotatedAugInput,
    apply_transform_to_polygons,
    apply_transform_to_rotated_boxes,
)

_ROUNDING = 1e-6


@dataclass(eq=False, kw_only=True)
class RotatedDatasetMapper(ImageMapper):
    """Read, crop (virtual tiles), augment, and convert one image of a rotated dataset.

    All randomness comes from ``np.random``, which Detectron2 seeds in every loader worker.

    Attributes:
        min_visible: least part of an object's visible area that augmentation must leave: if a share
            s of the object is in the image before, at least ``min_visible * s`` must be after. 0.7
            is the rule by which DOTA is tiled. Objects that leave the image are expected and not
            reported; flips and resizing never remove one that the image showed.
        keep_difficult: keep objects with ``difficult`` 1 or 2.
        with_polygons: add ``gt_polygons``, the augmented ``poly``, (N, 4, 2) float32.
        with_difficult: add ``gt_difficult``, (N,) int64.
    """

    min_visible: float = 0.7
    keep_difficult: bool = True
    with_polygons: bool = False
    with_difficult: bool = False

    def __post_init__(self) -> None:
        """Validate the arguments.

        Raises:
            ValueError: for a value out of range.
        """
        super().__post_init__()
        if not 0 <= self.min_visible <= 1:
            raise ValueError(f"min_visible must be in [0, 1], got {self.min_visible}.")

    def __call__(self, dataset_dict: dict) -> dict:
        """Map one dataset dict, which is not changed.

        Args:
            dataset_dict: ``file_name``, ``height``, ``width``, ``image_id``, and where there are
                labels ``annotations`` with boxes in ``XYWHA_ABS``; ``tile`` for tiles.

        Returns:
            the dict without ``annotations``, and ``image``: (3, H, W) uint8; in training
            ``instances``: ``gt_boxes`` (N, 5) canonical ``RotatedBoxes`` in pixels of ``image``
            and degrees, ``gt_classes`` (N,) int64, N >= 0. ``height`` and ``width`` stay those of
            the image or tile before augmentation.

        Raises:
            FileNotFoundError: if the image is missing.
            ValueError: if the image is broken or of another size than the dict says, or boxes are
                not rotated; the message names the file.
        """
        result = {key: value for key, value in dataset_dict.items() if key != "annotations"}
        annotations = dataset_dict.get("annotations", []) if self.is_train else []
        image = self.read(dataset_dict)
        boxes = _stack_boxes(annotations, dataset_dict["file_name"])
        corners = boxes_to_corners(torch.from_numpy(boxes)).numpy()

        aug_input = RotatedAugInput(image, corners)
        transform = self.augment(aug_input)
        result["image"] = to_tensor(aug_input.image, self.image_format)

        if self.is_train:
            before, after = image.shape[:2], aug_input.image.shape[:2]
            moved = apply_transform_to_rotated_boxes(transform, boxes)
            keep = self._keep(annotations, corners, aug_input.polygons, before, after)
            keep &= moved[:, 2:4].min(axis=1) >= self.min_side
            result["instances"] = self.make_instances(annotations, moved, keep, transform, after)
        return result

    def _keep(
        self,
        annotations: list[dict],
        corners: np.ndarray,
        moved: np.ndarray,
        before: tuple[int, int],
        after: tuple[int, int],
    ) -> np.ndarray:
        """Return (N,) bool by the crowd and difficult flags and the share that is still visible."""
        wanted = [
            not a.get("iscrowd", 0) and (self.keep_difficult or not a.get("difficult", 0))
            for a in annotations
        ]

        # Relative to the share shown before, so that a flip loses no object that its tile cuts.
        shown = visible_fractions(corners, np.array([0, 0, before[1], before[0]]))
        left = visible_fractions(moved, np.array([0, 0, after[1], after[0]]))
        visible = (left > 0) & (left >= self.min_visible * shown - _ROUNDING)
        return np.array(wanted, dtype=bool) & visible

    def make_instances(
        self,
        annotations: list[dict],
        boxes: np.ndarray,
        keep: np.ndarray,
        transform: T.TransformList,
        size: tuple[int, int],
    ) -> Instances:
        """Wrap the kept objects; a subclass adds fields here.

        Args:
            annotations: all N annotations of the dataset dict.
            boxes: (N, 5) boxes after augmentation.
            keep: (N,) bool, True for the objects to keep.
            transform: transforms that the augmentations drew.
            size: (height, width) of the image after augmentation.

        Returns:
            the kept objects, in the order of the annotations.
        """
        kept = [annotation for annotation, chosen in zip(annotations, keep) if chosen]
        instances = Instances(size)

        # Canonical once more, because rounding to float32 may make the sides equal.
        instances.gt_boxes = RotatedBoxes(canonicalize(torch.from_numpy(boxes[keep]).float()))
        classes = [annotation["category_id"] for annotation in kept]
        instances.gt_classes = torch.tensor(classes, dtype=torch.int64)

        if self.with_polygons:
            polygons = np.array([polygon_of(a, "(being read)") for a in kept]).reshape(-1, 4, 2)
            moved = apply_transform_to_polygons(transform, polygons)
            instances.gt_polygons = torch.from_numpy(moved).float()
        if self.with_difficult:
            flags = [annotation.get("difficult", 0) for annotation in kept]
            instances.gt_difficult = torch.tensor(flags, dtype=torch.int64)
        return instances


def _stack_boxes(annotations: list[dict], file_name: str) -> np.ndarray:
    """Return the boxes as (N, 5) float64, and refuse boxes of other modes."""
    for annotation in annotations:
        if annotation["bbox_mode"] != BoxMode.XYWHA_ABS or len(annotation["bbox"]) != 5:
            raise ValueError(
                f"The annotations of {file_name} hold a box {annotation['bbox']} of mode "
                f"{annotation['bbox_mode']}; rotated data needs BoxMode.XYWHA_ABS."
            )
    boxes = [annotation["bbox"] for annotation in annotations]
    return np.array(boxes, dtype=np.float64).reshape(-1, 5)
