"""From a dataset dict to what a model takes: image tensor and ``Instances`` of rotated boxes.

Shapes: N objects, H, W height and width after augmentation.
"""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from detectron2.data import transforms as T
from detectron2.structures import BoxMode, Instances, RotatedBoxes

# Whoever loads data wants the built-in data sets registered.
from rsd2.data import datasets  # noqa: F401
from rsd2.data.dataset_dicts import check_record, polygon_of
from rsd2.data.windows.tiling import PAD_COLOR, crop_window, visible_fractions
from rsd2.io.files import replaced_file
from rsd2.io.image_io import read_image
from rsd2.structures import boxes_to_corners, canonicalize

from .transforms import (
    RotatedAugInput,
    apply_transform_to_polygons,
    apply_transform_to_rotated_boxes,
)

_ROUNDING = 1e-6


class RotatedDatasetMapper:
    """Read, crop (virtual tiles), augment, and convert one image of a rotated data set.

    All randomness comes from ``np.random``, which Detectron2 seeds in every loader worker.
    """

    def __init__(
        self,
        is_train: bool,
        *,
        augmentations: Sequence[T.Augmentation | T.Transform],
        image_format: str = "RGB",
        min_visible: float = 0.7,
        min_side: float = 0.0,
        keep_difficult: bool = True,
        with_polygons: bool = False,
        with_difficult: bool = False,
        pad_color: tuple[int, int, int] = PAD_COLOR,
        cached_images: int = 1,
        decoded_cache_dir: str | Path | None = None,
    ) -> None:
        """Set the pipeline up.

        Args:
            is_train: with annotations; without, they are left out.
            augmentations: applied in order; any of Detectron2's, and those of
                ``rsd2.data.mappers.transforms``.
            image_format: channel order of the output, ``"RGB"`` or ``"BGR"``.
            min_visible: of an object that shows a share s of its area before augmentation, at
                least ``min_visible * s`` must be left in the image after it. 0.7 is the rule by
                which DOTA is tiled. Objects that leave the image are expected and not reported;
                flips and resizing never remove one that the image showed.
            min_side: objects whose shorter side is below this many pixels after augmentation are
                left out; 0 keeps all.
            keep_difficult: keep objects with ``difficult`` 1 or 2.
            with_polygons: add ``gt_polygons``, the augmented ``poly``, (N, 4, 2) float32.
            with_difficult: add ``gt_difficult``, (N,) int64.
            pad_color: RGB of what a virtual tile shows beyond its image.
            cached_images: decoded full images kept by each worker for virtual tiles; >= 0. Serves
                the orderly walk of a test loader.
            decoded_cache_dir: folder for decoded full images (.npy, 3 bytes for each pixel) that
                all workers map into memory; made on demand. Serves the shuffled walk of a
                training loader over virtual tiles, which else decodes a full image for each tile.

        Raises:
            ValueError: for a value out of range.
        """
        if image_format not in ("RGB", "BGR"):
            raise ValueError(f"image_format must be 'RGB' or 'BGR', got {image_format!r}.")
        if not 0 <= min_visible <= 1 or min_side < 0 or cached_images < 0:
            raise ValueError(
                "min_visible must be in [0, 1], min_side and cached_images >= 0, got "
                f"{min_visible}, {min_side}, {cached_images}."
            )
        self.is_train = is_train
        self.augmentations = T.AugmentationList(list(augmentations))
        self.image_format = image_format
        self.min_visible = min_visible
        self.min_side = min_side
        self.keep_difficult = keep_difficult
        self.with_polygons = with_polygons
        self.with_difficult = with_difficult
        self.pad_color = tuple(pad_color)
        self.cached_images = cached_images
        self.decoded_cache_dir = None if decoded_cache_dir is None else Path(decoded_cache_dir)
        self._cache: OrderedDict[str, np.ndarray] = OrderedDict()

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
            FileNotFoundError: if the image is not there.
            ValueError: if it is broken, of another size than the dict says, or boxes are not
                rotated; the message names the file.
        """
        result = {key: value for key, value in dataset_dict.items() if key != "annotations"}
        image = self._read(dataset_dict)
        annotations = dataset_dict.get("annotations", []) if self.is_train else []
        boxes = _stack_boxes(annotations, dataset_dict["file_name"])
        corners = boxes_to_corners(torch.from_numpy(boxes)).numpy()
        aug_input = RotatedAugInput(image, corners)
        transform = self.augmentations(aug_input)
        pixels = aug_input.image
        if self.image_format == "BGR":
            pixels = pixels[:, :, ::-1]
        result["image"] = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
        if self.is_train:
            before, after = image.shape[:2], aug_input.image.shape[:2]
            moved = apply_transform_to_rotated_boxes(transform, boxes)
            keep = self._keep(annotations, corners, aug_input.polygons, before, after)
            keep &= moved[:, 2:4].min(axis=1) >= self.min_side
            result["instances"] = self.make_instances(annotations, moved, keep, transform, after)
        return result

    def _read(self, dataset_dict: dict) -> np.ndarray:
        """The image or tile, RGB, after a check of its size."""
        check_record(dataset_dict, "file_name", "height", "width")
        path, tile = dataset_dict["file_name"], dataset_dict.get("tile")
        if not (tile and tile["virtual"]):
            image = read_image(path)
            expected = (dataset_dict["height"], dataset_dict["width"])
            _check_size(path, image, expected)
            return image
        image = self._read_full(path)
        if "source_height" in tile:
            _check_size(path, image, (tile["source_height"], tile["source_width"]))
        window = (tile["x"], tile["y"], tile["x"] + tile["width"], tile["y"] + tile["height"])
        return crop_window(image, np.array(window), self.pad_color)

    def _read_full(self, path: str) -> np.ndarray:
        """A full image, from the worker's memory, the decoded copy on disk, or its file."""
        if path in self._cache:
            self._cache.move_to_end(path)
            return self._cache[path]
        image = read_image(path) if self.decoded_cache_dir is None else self._map_decoded(path)
        self._cache[path] = image
        while len(self._cache) > self.cached_images:
            self._cache.popitem(last=False)
        return image

    def _map_decoded(self, path: str) -> np.ndarray:
        """Memory map of the decoded image; the copy is made anew when the image file changes."""
        status = os.stat(path)
        identity = f"{os.path.abspath(path)}|{status.st_size}|{status.st_mtime_ns}"
        name = f"{Path(path).stem}-{hashlib.sha1(identity.encode()).hexdigest()[:16]}.npy"
        copy = self.decoded_cache_dir / name
        if not copy.is_file():
            self.decoded_cache_dir.mkdir(parents=True, exist_ok=True)
            pixels = read_image(path)
            # Several workers may decode one image at once.
            with replaced_file(copy, os.getpid()) as temporary, temporary.open("wb") as stream:
                np.save(stream, pixels)
        return np.load(copy, mmap_mode="r")

    def _keep(
        self,
        annotations: list[dict],
        corners: np.ndarray,
        moved: np.ndarray,
        before: tuple[int, int],
        after: tuple[int, int],
    ) -> np.ndarray:
        """(N,) bool: crowd and difficult flags, and the share that is still visible."""
        wanted = [
            not a.get("iscrowd", 0) and (self.keep_difficult or not a.get("difficult", 0))
            for a in annotations
        ]
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
            annotations: all N of the dataset dict.
            boxes: (N, 5) after augmentation.
            keep: (N,) bool.
            transform: the augmentations that were drawn.
            size: (height, width) after them.

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
    """(N, 5) float64 boxes, refusing boxes of other modes."""
    for annotation in annotations:
        if annotation["bbox_mode"] != BoxMode.XYWHA_ABS or len(annotation["bbox"]) != 5:
            raise ValueError(
                f"The annotations of {file_name} hold a box {annotation['bbox']} of mode "
                f"{annotation['bbox_mode']}; rotated data needs BoxMode.XYWHA_ABS."
            )
    boxes = [annotation["bbox"] for annotation in annotations]
    return np.array(boxes, dtype=np.float64).reshape(-1, 5)


def _check_size(path: str, image: np.ndarray, expected: tuple[int, int]) -> None:
    if image.shape[:2] != tuple(expected):
        raise ValueError(
            f"Image {path} has {image.shape[1]} x {image.shape[0]} pixels, but its data set says "
            f"{expected[1]} x {expected[0]}; the file has changed since the data set was read, or "
            "its labels belong to another image. Register the data set anew."
        )
