"""A trained model of clips as a function from windows of frames to detections."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from detectron2.data import transforms as T
from torch import nn


class ClipDetector:
    """A model behind the test-time augmentations of its config: a `DetectClips`.

    Args:
        model: model that maps dicts with ``frames`` to ``{"instances": Instances}``; put into eval
            mode.
        augmentations: augmentations of the test mapper, applied in order, to all frames alike.
        num_frames: frames of a clip.
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
        """Detect objects in the newest frames of some clips together, see `DetectClips`."""
        inputs = []
        for clip in clips:
            height, width = clip[0].shape[:2]
            # Clip models are trained on OpenCV's channel order; files are read as RGB.
            newest = T.AugInput(clip[0][:, :, ::-1])
            # One transform for all frames: another one would move objects between them.
            transform = self.augmentations(newest)
            earlier = [transform.apply_image(image[:, :, ::-1]) for image in clip[1:]]
            frames = np.stack([newest.image, *earlier])
            tensor = torch.from_numpy(np.ascontiguousarray(frames.transpose(0, 3, 1, 2)))
            inputs.append({"frames": tensor, "height": height, "width": width})

        found = [output["instances"] for output in self.model(inputs)]
        return [(x.pred_boxes.tensor, x.scores, x.pred_classes) for x in found]
