"""From a dataset dict of a video's frame to a clip: its frames under one transform, and the boxes.

Shapes: T frames, N objects, H, W height and width after augmentation.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
import torch
from detectron2.data import detection_utils
from detectron2.data import transforms as T
from detectron2.structures import BoxMode
from fvcore.transforms.transform import BlendTransform, TransformList

# Whoever loads data wants the built-in data sets registered.
from rsd2.data import datasets  # noqa: F401
from rsd2.data.windows.video_clips import NUM_FRAMES
from rsd2.io.image_io import read_image

_logger = logging.getLogger(__name__)
_SCALE = 255.0


class ClipDatasetMapper:
    """Read the window of a frame, augment all its frames alike, and convert them.

    A frame that cannot be used (not there, broken, of another size than the data set says) is
    counted and logged once. In its place stands the next later frame of the window; for the key
    frame itself, the next earlier one at test, and none in training, where the loader then draws
    another sample. All randomness comes from ``np.random``.
    """

    def __init__(
        self,
        is_train: bool,
        *,
        augmentations: Sequence[T.Augmentation | T.Transform] = (),
        num_frames: int = NUM_FRAMES,
        broken_frame: str = "replace",
        min_side: float = 0.0,
        normalize_first: bool = False,
        pixel_mean: float = 127.4,
        pixel_std: float = 21.05,
        cached_frames: int = 8,
    ) -> None:
        """Set the pipeline up.

        Args:
            is_train: with annotations; without, they are left out.
            augmentations: of Detectron2 or ``rsd2.data.mappers.photometric``, applied in order to
                BGR images of 0 to 255, or normalised ones. Those that mix an image into itself
                (``RandomSaturation``) are refused.
            num_frames: T, the first of ``frame_file_names``, >= 1; further ones are not read.
            broken_frame: ``"replace"`` as said above, or ``"error"``.
            min_side: boxes whose shorter side is below this many pixels after augmentation are
                left out; 0 keeps all that have an area.
            normalize_first: the official order: frames are normalised before they are augmented,
                and in training only those with an object are, so that no augmentation may change
                their size there. The distortion's numbers are then far too large, and results are
                not cut to a range: give ``RandomPhotometricDistortion`` no ``value_range``.
            pixel_mean: of all channels, grey levels, for ``normalize_first``.
            pixel_std: likewise.
            cached_frames: decoded frames kept by each worker, >= 0: neighbouring windows share
                all but one.

        Raises:
            ValueError: for a value out of range.
        """
        if num_frames < 1 or cached_frames < 0 or min_side < 0 or pixel_std <= 0:
            raise ValueError(
                "num_frames must be >= 1, cached_frames and min_side >= 0 and pixel_std > 0, got "
                f"{num_frames}, {cached_frames}, {min_side} and {pixel_std}"
            )
        if broken_frame not in ("replace", "error"):
            raise ValueError(f"broken_frame must be 'replace' or 'error', got {broken_frame!r}")
        self.is_train, self.num_frames, self.broken_frame = is_train, num_frames, broken_frame
        self.augmentations = T.AugmentationList(list(augmentations))
        self.min_side, self.normalize_first = min_side, normalize_first
        self.pixel_mean, self.pixel_std = pixel_mean, pixel_std
        self.cached_frames = cached_frames
        self.broken: dict[str, str] = {}
        """File that could not be used -> why, of this process."""
        self._cache: OrderedDict[str, np.ndarray] = OrderedDict()

    def __call__(self, dataset_dict: dict) -> dict | None:
        """Map one dataset dict, which is not changed.

        Args:
            dataset_dict: ``file_name``, ``height``, ``width``, ``frame_file_names`` (key frame
                first; without it, the key frame repeats) and, where there are labels,
                ``annotations`` of upright boxes.

        Returns:
            the dict without ``annotations``, and ``frames``: (T, 3, H, W) BGR, key frame first,
            uint8, or float32 after photometric augmentation; with ``normalize_first`` float32 and
            normalised, and ``normalized`` True. In training ``instances`` of the key frame:
            ``gt_boxes`` (N, 4) ``Boxes`` in pixels, cut at the border, ``gt_classes`` (N,) int64,
            N >= 0. ``height`` and ``width`` stay those of the files. None in training if the key
            frame cannot be used.

        Raises:
            FileNotFoundError: if a frame is not there and ``broken_frame`` is ``"error"``.
            ValueError: likewise if one is broken, and always if none of the window can be used, an
                augmentation is refused, or one changes the size though ``normalize_first`` is set.
        """
        result = {key: value for key, value in dataset_dict.items() if key != "annotations"}
        frames = self._read_window(dataset_dict)
        if frames is None:
            return None
        annotations = dataset_dict.get("annotations", []) if self.is_train else []
        annotations = [a for a in annotations if not a.get("iscrowd") and not a.get("ignore")]
        boxes = [BoxMode.convert(a["bbox"], a["bbox_mode"], BoxMode.XYXY_ABS) for a in annotations]
        boxes = np.array(boxes, dtype=np.float64).reshape(-1, 4)
        if self.normalize_first:
            frames = [self._normalize(frame) for frame in frames]
            result["normalized"] = True
        if not self.normalize_first or len(boxes) or not self.is_train:
            aug_input = T.AugInput(frames[0], boxes=boxes)
            transform = self.augmentations(aug_input)
            _refuse_mixing(transform)
            size = frames[0].shape
            frames = [aug_input.image, *map(transform.apply_image, frames[1:])]
            if self.normalize_first and self.is_train and frames[0].shape != size:
                raise ValueError(
                    "An augmentation changes the size of frames, but with normalize_first frames "
                    "without object are not augmented and would keep theirs; leave it out, or set "
                    "normalize_first=false."
                )
            boxes = aug_input.boxes
        stack = np.stack([np.asarray(frame).transpose(2, 0, 1) for frame in frames])
        result["frames"] = torch.from_numpy(np.ascontiguousarray(stack))
        if self.is_train:
            result["instances"] = self._make_instances(annotations, boxes, stack.shape[2:])
        return result

    def _normalize(self, frame: np.ndarray) -> np.ndarray:
        return (frame.astype(np.float32) - self.pixel_mean) / np.float32(self.pixel_std)

    def _make_instances(
        self, annotations: list[dict], boxes: np.ndarray, size: tuple[int, int]
    ) -> detection_utils.Instances:
        moved = np.clip(boxes, 0, (size[1], size[0]) * 2)
        sides = (moved[:, 2:] - moved[:, :2]).min(axis=1, initial=np.inf)
        targets = [
            {"bbox": box, "bbox_mode": BoxMode.XYXY_ABS, "category_id": a["category_id"]}
            for a, box, side in zip(annotations, moved, sides)
            if side > 0 and side >= self.min_side
        ]
        return detection_utils.annotations_to_instances(targets, tuple(size))

    def _read_window(self, dataset_dict: dict) -> list[np.ndarray] | None:
        """The T frames, BGR, broken ones replaced; None for a training sample without key frame."""
        names = dataset_dict.get("frame_file_names", [dataset_dict["file_name"]])
        names = list(names[: self.num_frames])
        names += names[-1:] * (self.num_frames - len(names))
        size = (dataset_dict["height"], dataset_dict["width"])
        found = [self._read(name, size) for name in names]
        if found[0] is None and self.is_train:
            return None
        usable = next((frame for frame in found if frame is not None), None)
        if usable is None:
            raise ValueError(
                f"No frame of the window of {dataset_dict['file_name']} can be used: "
                f"{'; '.join(dict.fromkeys(self.broken[name] for name in names))}"
            )
        frames = []
        for frame in found:
            usable = usable if frame is None else frame
            frames.append(usable)
        return frames

    def _read(self, path: str, size: tuple[int, int]) -> np.ndarray | None:
        """A frame, from memory or its file; None if it cannot be used."""
        if path in self.broken:
            return None
        if path in self._cache:
            self._cache.move_to_end(path)
            return self._cache[path]
        try:
            image = read_image(path, "BGR")
            if image.shape[:2] != size:
                raise ValueError(
                    f"Frame {path} has {image.shape[1]} x {image.shape[0]} pixels, but its data "
                    f"set says {size[1]} x {size[0]}; frames of a video must have one size."
                )
        except (FileNotFoundError, ValueError) as error:
            if self.broken_frame == "error":
                raise
            self.broken[path] = str(error)
            _logger.warning("frame %d that cannot be used: %s", len(self.broken), error)
            return None
        self._cache[path] = image
        while len(self._cache) > self.cached_frames:
            self._cache.popitem(last=False)
        return image


def _refuse_mixing(transforms: TransformList) -> None:
    """Refuse transforms that hold pixels of the key frame."""
    for transform in transforms.transforms:
        if isinstance(transform, BlendTransform) and np.ndim(transform.src_image) == 3:
            raise ValueError(
                "An augmentation blends the key frame into the others (RandomSaturation does); "
                "use rsd2.data.mappers.photometric.RandomPhotometricDistortion."
            )
