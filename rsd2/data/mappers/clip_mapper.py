"""Maps the dataset dict of a video frame to a clip: frames under one transform, and the boxes.

Shapes: T frames, N objects, H, W height and width after augmentation.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import ClassVar

import numpy as np
import torch
from detectron2.data import transforms as T
from fvcore.transforms.transform import BlendTransform, TransformList

from rsd2.data.windows.video_clips import NUM_FRAMES
from rsd2.io.image_io import read_image

from .box_mapper import stack_upright_boxes, upright_instances
from .image_mapper import RecentImages, to_tensor

_logger = logging.getLogger(__name__)


@dataclass(eq=False)
class ClipDatasetMapper:
    """Read the window of a frame, augment all its frames alike, and convert them.

    The mapper counts and logs once each frame that it cannot use (missing, broken, or of another
    size than the dataset says). The next later frame of the window replaces it. The key frame is
    replaced by the next earlier one at test; in training the mapper returns None, and the loader
    draws another sample. All randomness comes from ``np.random``.

    Attributes:
        is_train: whether annotations are wanted; without, they are left out.
        augmentations: augmentations of Detectron2 or ``rsd2.data.mappers.photometric``, applied in
            order to BGR images of 0 to 255, or to normalised ones. Those that mix an image into
            itself (``RandomSaturation``) are refused.
        num_frames: number of frames T that are read from the start of ``frame_file_names``, >= 1.
        broken_frame: ``"replace"`` as described above, or ``"error"``.
        min_side: boxes whose shorter side is below this many pixels after augmentation are left
            out; 0 keeps all that have an area.
        normalize_first: the official order: frames are normalised before they are augmented, and in
            training only those with an object are, so that no augmentation may change their size
            there. The distortion's numbers are then far too large, and results are not cut to a
            range: give ``RandomPhotometricDistortion`` no ``value_range``.
        pixel_mean: mean of all channels, grey levels, for ``normalize_first``.
        pixel_std: standard deviation of all channels, grey levels, > 0, for ``normalize_first``.
        cached_frames: number of decoded frames that each worker keeps, >= 0: neighbouring windows
            share all but one.
        broken: file that could not be used -> reason, for this process.
        image_format: order of the channels of all frames.
    """

    image_format: ClassVar[str] = "BGR"

    is_train: bool
    _: KW_ONLY
    augmentations: Sequence[T.Augmentation | T.Transform] = ()
    num_frames: int = NUM_FRAMES
    broken_frame: str = "replace"
    min_side: float = 0.0
    normalize_first: bool = False
    pixel_mean: float = 127.4
    pixel_std: float = 21.05
    cached_frames: int = 8
    broken: dict[str, str] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        """Validate the arguments.

        Raises:
            ValueError: for a value out of range.
        """
        if (
            self.num_frames < 1
            or self.cached_frames < 0
            or self.min_side < 0
            or self.pixel_std <= 0
        ):
            raise ValueError(
                "num_frames must be >= 1, cached_frames and min_side >= 0 and pixel_std > 0, got "
                f"{self.num_frames}, {self.cached_frames}, {self.min_side} and {self.pixel_std}"
            )
        if self.broken_frame not in ("replace", "error"):
            raise ValueError(
                f"broken_frame must be 'replace' or 'error', got {self.broken_frame!r}"
            )

        self.augment = T.AugmentationList(list(self.augmentations))
        self._recent = RecentImages(self.cached_frames)

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
            FileNotFoundError: if a frame is missing and ``broken_frame`` is ``"error"``.
            ValueError: if a frame is broken and ``broken_frame`` is ``"error"``, no frame of the
                window can be used, an augmentation is refused, or an augmentation changes the size
                although ``normalize_first`` is set.
        """
        result = {key: value for key, value in dataset_dict.items() if key != "annotations"}
        frames = self._read_window(dataset_dict)
        if frames is None:
            return None

        annotations = dataset_dict.get("annotations", []) if self.is_train else []
        annotations = [a for a in annotations if not a.get("iscrowd") and not a.get("ignore")]
        boxes = stack_upright_boxes(annotations, dataset_dict["file_name"])

        if self.normalize_first:
            frames = [self._normalize(frame) for frame in frames]
            result["normalized"] = True
        if not self.normalize_first or len(boxes) or not self.is_train:
            frames, boxes = self._augment(frames, boxes)

        result["frames"] = torch.stack([to_tensor(frame) for frame in frames])
        if self.is_train:
            size = frames[0].shape[:2]
            result["instances"] = upright_instances(annotations, boxes, size, self.min_side)
        return result

    def _normalize(self, frame: np.ndarray) -> np.ndarray:
        return (frame.astype(np.float32) - self.pixel_mean) / np.float32(self.pixel_std)

    def _augment(
        self, frames: list[np.ndarray], boxes: np.ndarray
    ) -> tuple[list[np.ndarray], np.ndarray]:
        """Draw one transform, for the key frame, and apply it to all frames and the boxes."""
        aug_input = T.AugInput(frames[0], boxes=boxes)
        transform = self.augment(aug_input)
        _refuse_mixing(transform)
        moved = [aug_input.image, *map(transform.apply_image, frames[1:])]

        if self.normalize_first and self.is_train and moved[0].shape != frames[0].shape:
            raise ValueError(
                "An augmentation changes the size of frames, but with normalize_first frames "
                "without object are not augmented and would keep theirs; leave it out, or set "
                "normalize_first=false."
            )
        return moved, aug_input.boxes

    def _read_window(self, dataset_dict: dict) -> list[np.ndarray] | None:
        """Return the T frames, BGR, broken ones replaced; None in training without a key frame."""
        names = dataset_dict.get("frame_file_names", [dataset_dict["file_name"]])
        names = list(names[: self.num_frames])
        # At the start of a video the window is short; its earliest frame repeats.
        names += names[-1:] * (self.num_frames - len(names))
        size = (dataset_dict["height"], dataset_dict["width"])

        found = [self._read(name, size) for name in names]
        if found[0] is None and self.is_train:
            return None

        # The next later frame of the window, which lists the latest first, stands in for a broken
        # one; before the first usable frame there is none, and the next earlier one does.
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
        """Return a frame from memory or its file; None if it cannot be used."""
        if path in self.broken:
            return None
        try:
            image = self._recent.get(path, lambda name: read_image(name, "BGR"))
            if image.shape[:2] != size:
                raise ValueError(
                    f"Frame {path} has {image.shape[1]} x {image.shape[0]} pixels, but its dataset "
                    f"says {size[1]} x {size[0]}; frames of a video must have one size."
                )
        except (FileNotFoundError, ValueError) as error:
            if self.broken_frame == "error":
                raise
            self.broken[path] = str(error)
            _logger.warning("frame %d that cannot be used: %s", len(self.broken), error)
            return None
        return image


def _refuse_mixing(transforms: TransformList) -> None:
    """Refuse transforms that hold pixels of the key frame."""
    for transform in transforms.transforms:
        if isinstance(transform, BlendTransform) and np.ndim(transform.src_image) == 3:
            raise ValueError(
                "An augmentation blends the key frame into the others (RandomSaturation does); "
                "use rsd2.data.mappers.photometric.RandomPhotometricDistortion."
            )
