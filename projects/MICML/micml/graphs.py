"""MICML and DSFNet as graphs of `rsd2.export`, which finds them by ``GRAPHS``.

Shapes: B clips, T frames, newest first, H, W height and width of a frame, N peaks of a frame.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from rsd2.export.graphs import DetectionGraph
from rsd2.layers import at_least_float32

from .decode import find_peaks
from .micml import FRAME_MULTIPLE, MICML


class CenterGraph(DetectionGraph):
    """`MICML` from a clip to the highest peaks of its newest frame, before soft-NMS.

    The motion module is part of the graph only with ``model.motion_at_eval``; the graph then takes
    a fixed number of clips.

    Args:
        model: the detector.
        image_format: see `DetectionGraph`.
    """

    model_class = MICML
    outputs = "peaks"
    model: MICML

    def __init__(self, model: nn.Module, image_format: str = "BGR") -> None:
        super().__init__(model, image_format)
        # The tracer fixes the number of clips where the motion module pools its states.
        self.any_batch = not model.motion_at_eval

    @property
    def num_classes(self) -> int:
        """Number of classes, K."""
        return self.model.num_classes

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Detect moving objects.

        Args:
            pixels: (B, T, 3, H, W) RGB, 0-255, uint8 or floating, newest frame first.

        Returns:
            boxes (B, N, 4) XYXY in pixels of the input, not cut at the frame; scores (B, N),
            decreasing, 0 where there is no peak; classes (B, N).
        """
        clips = self.normalize(pixels)
        height, width = clips.shape[-2:]
        # Zero is the mean colour, with which the model pads, too.
        below, beside = -height % FRAME_MULTIPLE, -width % FRAME_MULTIPLE
        padded = F.pad(clips, (0, beside, 0, below)).transpose(1, 2)

        maps = self.model.predict_maps(padded, with_motion=self.model.motion_at_eval)
        # Peaks in the padding would take places of others.
        own = {name: at_least_float32(x[:, :, :height, :width]) for name, x in maps.items()}
        return find_peaks(own, self.model.top_k)

    def finishing(self) -> dict[str, Any]:
        """Return the score that a peak must exceed, and whether soft-NMS follows."""
        return {"score_floor": self.model.score_floor, "soft_nms": self.model.soft_nms}


GRAPHS = {"MICML": CenterGraph}
