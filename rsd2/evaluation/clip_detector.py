"""A trained model of clips as a function from windows of frames to detections.

Shapes: T frames of a clip, N detections, h, w size of a frame.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from detectron2.data import transforms as T
from torch import nn

from rsd2.data.tiling import crop_window

from .box_matching import BoxDetections
from .box_records import BoxMerging, assemble_boxes, make_box_record
from .sliding_window import WindowParameters, place_windows


class ClipDetector:
    """A model behind the test-time augmentations of its config.

    Args:
        model: from dicts with ``frames`` to ``{"instances": Instances}``; put into eval mode.
        augmentations: of the test mapper, applied in order, to all frames alike.
        num_frames: T.
    """

    def __init__(
        self,
        model: nn.Module,
        augmentations: Sequence[T.Augmentation | T.Transform] = (),
        num_frames: int = 5,
    ) -> None:
        self.model = model.eval()
        self.augmentations = T.AugmentationList(list(augmentations))
        self.num_frames = num_frames

    @torch.inference_mode()
    def __call__(
        self, clips: Sequence[Sequence[np.ndarray]]
    ) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """Detect objects in the newest frames of some clips together.

        Args:
            clips: each T images (h, w, 3) uint8 RGB of one size, newest first.

        Returns:
            For each clip boxes (N, 4) XYXY in pixels of its frames, scores (N,), classes (N,).
        """
        inputs = []
        for clip in clips:
            height, width = clip[0].shape[:2]
            transform = self.augmentations(T.AugInput(clip[0][:, :, ::-1]))
            frames = np.stack([transform.apply_image(image[:, :, ::-1]) for image in clip])
            tensor = torch.from_numpy(np.ascontiguousarray(frames.transpose(0, 3, 1, 2)))
            inputs.append({"frames": tensor, "height": height, "width": width})
        found = [output["instances"] for output in self.model(inputs)]
        return [(x.pred_boxes.tensor, x.scores, x.pred_classes) for x in found]


def detect_in_clip(
    clip: Sequence[np.ndarray], detector: ClipDetector, parameters: WindowParameters
) -> tuple[BoxDetections, dict[str, int]]:
    """Detect objects in the newest frame of a clip, in overlapping windows if it is large.

    Args:
        clip: T images (H, W, 3) uint8 RGB, newest first.
        detector: the model.
        parameters: of windows and merging; the NMS between windows is that of upright boxes.

    Returns:
        The detections in decreasing score, and counts of what was dropped, see `assemble_boxes`.
    """
    windows = place_windows(*clip[0].shape[:2], parameters)
    records = []
    for start in range(0, len(windows), parameters.batch_size):
        batch = windows[start : start + parameters.batch_size]
        outputs = detector([[crop_window(image, box) for image in clip] for box in batch])
        for (x0, y0, x1, y1), output in zip(batch.tolist(), outputs):
            tile = {"x": x0, "y": y0, "width": x1 - x0, "height": y1 - y0}
            tile = tile if len(windows) > 1 else None
            records.append(make_box_record("", tile, *output, parameters.score_threshold))
    found, counts = assemble_boxes(records, {"": 0}, BoxMerging(parameters.nms_threshold))
    return found.select(np.argsort(-found.scores, kind="stable")), counts
