"""Detectors in the form that the QGIS plugin Deepness runs: its oriented-box detection type.

Source: the plugin's documentation on model classes and metadata, and the layout of Ultralytics'
oriented-box exports that its type ``YOLO_Ultralytics_obb`` reads.

Shapes: B images, H, W height and width of the input, K classes, Q queries.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from .description import Description, ExportError
from .graphs import DetectionGraph, RotatedDetrGraph

DETECTOR_TYPE = "YOLO_Ultralytics_obb"


class DeepnessGraph(nn.Module):
    """A detector of rotated boxes that takes the plugin's input and returns what it parses.

    Args:
        graph: the detector.

    Attributes:
        output_names: name of the one tensor that ``forward`` returns.
        any_batch: whether the number of images may be left open.
        input_dtype: dtype of the pixels.

    Raises:
        ExportError: the detector does not predict rotated boxes.
    """

    output_names = ("output0",)
    any_batch = True
    input_dtype = torch.float32

    def __init__(self, graph: DetectionGraph) -> None:
        super().__init__()
        if not isinstance(graph, RotatedDetrGraph):
            raise ExportError(
                f"Deepness gets rotated boxes, which a {type(graph.model).__name__} does not have"
            )
        self.detector = graph

    @property
    def model(self) -> nn.Module:
        """The detector's model."""
        return self.detector.model

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Detect objects in the form that the plugin parses.

        Args:
            pixels: (B, 3, H, W) float32 RGB in [0, 1], as the plugin scales 8-bit pixels.

        Returns:
            (B, 4 + K + 1, Q): centre and sides in pixels of the input, a score for each class,
            and the angle in radians, clockwise on screen.
        """
        # The detector normalizes pixels of 0-255 itself, so the plugin's scaling is undone.
        boxes, angles, probabilities = self.detector.predict(pixels * 255)

        # Clockwise, as in all programs whose y axis and angle grow together.
        radians = -torch.deg2rad(angles)
        return torch.cat([boxes, probabilities, radians[..., None]], dim=2).transpose(1, 2)


def deepness_props(description: Description) -> dict[str, str]:
    """Return the metadata of a file for Deepness.

    Args:
        description: description of the detector, with ``resolution``.

    Returns:
        The plugin's entries, each a JSON value, and the entries of rsd2.

    Raises:
        ExportError: the images would have to be resized before the graph, which the plugin does
            not do, or the resolution is unknown.
    """
    height, width = description.input_size
    if (height, width) != (description.window, description.window):
        raise ExportError(
            f"Deepness cuts windows and does not resize them: the model's test images have {width}"
            f" pixels; pass --window {width}, and the --resolution of the images at that size"
        )
    if description.resolution is None:
        raise ExportError(
            "Deepness needs the size of a pixel, which is unknown; pass --resolution METRES"
        )

    finishing = description.finishing
    own: dict[str, Any] = {
        "model_type": "Detector",
        "det_type": DETECTOR_TYPE,
        "class_names": {str(index): name for index, name in enumerate(description.classes)},
        # The plugin counts in centimetres per pixel.
        "resolution": 100 * description.resolution,
        "tiles_size": width,
        "tile_size": width,  # the key that the program reads; its documentation names the other one
        "tiles_overlap": 20,
        # Evaluation keeps weak detections, but on a map they would hide the others.
        "det_conf": max(finishing["score_threshold"], 0.3),
        "det_iou_thresh": finishing["nms_threshold"] or 0.3,
    }

    pixels = "RGB, 0-1, float32, (batch, 3, height, width)"
    described = replace(description, outputs="deepness", pixel_format=pixels).to_props()
    return described | {key: json.dumps(value) for key, value in own.items()}
