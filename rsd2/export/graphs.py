"""Detectors as modules that map pixels to tensors of fixed size and can be traced.

Shapes: B images, H, W height and width of the input, K classes, N detections of an image.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from detectron2.structures import ImageList
from torch import nn
from torch.nn import functional as F

from rsd2.modeling.postprocessing import best_pairs
from rsd2.modeling.rotated_deformable_detr import RotatedDeformableDETR

from .description import ExportError


class DetectionGraph(nn.Module, ABC):
    """A detector from pixels to its candidates, before double detections are suppressed.

    Args:
        model: detector with buffers ``pixel_mean`` and ``pixel_std``; put into eval mode.
        image_format: channel order that the model was trained with, "RGB" or "BGR"; the graph
            reads RGB in any case.

    Raises:
        ExportError: the model is none of ``model_class``, or has parts that cannot be exported.

    Attributes:
        model_class: class of the models that the graph fits.
        outputs: kind of the results, see `description.ANGLES`.
        output_names: names of the tensors that ``forward`` returns.
        any_batch: whether the number of images may be left open.
        input_dtype: dtype of the pixels.
    """

    model_class: type[nn.Module] = nn.Module
    outputs = ""
    output_names: tuple[str, ...] = ("boxes", "scores", "classes")
    any_batch = True
    input_dtype = torch.uint8

    def __init__(self, model: nn.Module, image_format: str = "RGB") -> None:
        # Graphs are chosen by the name of the class, which another package may use too.
        if not isinstance(model, self.model_class):
            ours = self.model_class
            raise ExportError(
                f"a {type(model).__name__} of {type(model).__module__} is not the {ours.__name__} "
                f"of {ours.__module__}, and cannot be exported as one"
            )

        super().__init__()
        self.model = model.eval()
        self.is_bgr = image_format == "BGR"

    def normalize(self, pixels: torch.Tensor) -> torch.Tensor:
        """Bring (..., 3, H, W) RGB, 0-255, into the range and the channel order of the model."""
        images = pixels.float()
        # The buffers are in the model's channel order, so the swap comes first.
        if self.is_bgr:
            images = images.flip(-3)

        mean, deviation = (self.model.get_buffer(name) for name in ("pixel_mean", "pixel_std"))
        return (images - mean) / deviation

    @property
    @abstractmethod
    def num_classes(self) -> int:
        """Number of classes, K."""

    def rgb_mean(self) -> tuple[float, float, float]:
        """Mean colour, 0-255, RGB: normalized, it becomes zero, as the model's padding is."""
        # In the order of the model's channels, not yet RGB.
        first, second, third = self.model.get_buffer("pixel_mean").flatten().tolist()

        return (third, second, first) if self.is_bgr else (first, second, third)

    @abstractmethod
    def finishing(self) -> dict[str, Any]:
        """Return the parameters of the steps that have to follow the graph."""


class RotatedDetrGraph(DetectionGraph):
    """`RotatedDeformableDETR` from pixels to its best (query, class) pairs, before any NMS.

    Args:
        model: the detector.
        image_format: see `DetectionGraph`.
    """

    model_class = RotatedDeformableDETR
    outputs = "rotated_pairs"
    model: RotatedDeformableDETR

    @property
    def num_classes(self) -> int:
        """Number of classes, K."""
        return self.model.num_classes

    def predict(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Predict a box, an angle and class probabilities for every query.

        Args:
            pixels: (B, 3, H, W) RGB, 0-255.

        Returns:
            boxes (B, Q, 4) cx, cy, w, h in pixels of the input, angles (B, Q) in degrees,
            counter-clockwise, and probabilities (B, Q, K).
        """
        model = self.model
        images = self.normalize(pixels)
        height, width = images.shape[-2:]
        # The padding of the model's own preprocessing: other sizes would give other features.
        multiple = max(model.backbone.size_divisibility, 32)
        padded = F.pad(images, (0, -width % multiple, 0, -height % multiple))

        # One size stands for all images, so that their number stays open.
        encoded = model.encode(ImageList(padded, [(height, width)]))

        predictions = model.detect(encoded, None).layers[-1]
        boxes = predictions.boxes * encoded.geometry.output_scale[:, None]
        angles = model.angle_coder.decode(predictions.angle_logits)
        return boxes, angles, predictions.class_logits.sigmoid()

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Detect objects and keep the best (query, class) pairs.

        Args:
            pixels: (B, 3, H, W) RGB, 0-255, uint8 or floating.

        Returns:
            boxes (B, N, 5) cx, cy, w, h in pixels of the input, angle in degrees,
            counter-clockwise, w may be the short side; scores (B, N) decreasing; classes (B, N).
        """
        boxes, angles, probabilities = self.predict(pixels)
        scores, query, classes = best_pairs(probabilities, self.model.postprocessor.max_detections)

        chosen = torch.cat([boxes, angles[..., None]], dim=2)
        return chosen.gather(1, query[..., None].expand(-1, -1, 5)), scores, classes

    def finishing(self) -> dict[str, Any]:
        """Return the thresholds of `rsd2.modeling.postprocessing.finish_detections`."""
        processor = self.model.postprocessor
        return {
            "score_threshold": processor.score_threshold,
            "nms_threshold": processor.nms_threshold,
        }
