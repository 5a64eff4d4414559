"""Description inside an exported file: ``metadata_props`` of ONNX, one JSON value for each key.

A file is self-contained: it names its classes, pixels, angles and the steps after the graph.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any

PREFIX = "rsd2_"
ANGLES = {
    "rotated_pairs": "degrees, counter-clockwise on screen, 0 = w along x; (cx, cy, w, h, angle)",
    "regions": "none, upright boxes (x0, y0, x1, y1)",
    "peaks": "none, upright boxes (x0, y0, x1, y1)",
    "deepness": "radians, clockwise on screen, 0 = w along x; (cx, cy, w, h, scores, angle)",
}


class ExportError(Exception):
    """A model cannot be exported, or an exported file cannot be used; the text says why."""


@dataclass(frozen=True)
class Description:
    """Facts about an exported detector.

    Attributes:
        outputs: kind of the graph's results, a key of :data:`ANGLES`.
        classes: names of the classes, in the order of their indices.
        window: side of the windows of an image that the graph is meant for, pixels, > 0.
        input_size: (height, width) of the graph's input, pixels.
        batch: number of images in one call; None for any number.
        resize: ``short_edge_length`` and ``max_size`` of the resizing before the graph; None for
            no resizing.
        pixel_mean: mean colour, 0-255, RGB; the graph subtracts it, a caller fills the margins
            with it.
        finishing: parameters of the steps after the graph, like ``score_threshold`` and
            ``nms_threshold``.
        model: name of the model's class.
        weights: name of the checkpoint file.
        weights_sha256: SHA-256 of the checkpoint file.
        ema: whether the averaged weights were taken.
        resolution: ground sampling distance of the training images, metres per pixel; None if it
            is unknown.
        version: version of rsd2 that wrote the file.
        angle: convention of the boxes, for readers; follows from ``outputs``.
        pixel_format: form of the pixels that the graph reads, for readers.
        num_frames: number of frames of a clip, newest first; None for a detector of images.
    """

    outputs: str
    classes: list[str]
    window: int
    input_size: tuple[int, int]
    batch: int | None
    resize: tuple[int, int] | None
    pixel_mean: tuple[float, float, float]
    finishing: dict[str, Any]
    model: str
    weights: str
    weights_sha256: str
    ema: bool
    resolution: float | None
    version: str
    angle: str = ""
    pixel_format: str = "RGB, 0-255, uint8, (batch, 3, height, width)"
    num_frames: int | None = None

    def to_props(self) -> dict[str, str]:
        """Return the entries of ``metadata_props``."""
        content = {**asdict(self), "angle": ANGLES[self.outputs]}
        return {f"{PREFIX}{key}": json.dumps(value) for key, value in content.items()}

    @classmethod
    def from_props(cls, props: Mapping[str, str], name: str) -> Description:
        """Read what :meth:`to_props` wrote.

        Args:
            props: entries of ``metadata_props``; other entries are ignored.
            name: name of the file, for messages.

        Raises:
            ExportError: an entry is missing, or is not JSON.
        """
        content = {}
        for field in fields(cls):
            text = props.get(f"{PREFIX}{field.name}")
            # Files of earlier versions lack the entries that have been added since.
            if text is None and field.default is not MISSING:
                continue
            if text is None:
                raise ExportError(
                    f"{name} has no metadata {PREFIX}{field.name}: `rsd2 export` did not "
                    "write it; export the model again"
                )
            try:
                content[field.name] = json.loads(text)
            except json.JSONDecodeError as error:
                raise ExportError(
                    f"{name}: metadata {PREFIX}{field.name} is not JSON ({error}); export it again"
                ) from error

        # JSON has no tuples, so they come back as lists.
        for key in ("input_size", "resize", "pixel_mean"):
            if content[key] is not None:
                content[key] = tuple(content[key])
        return cls(**content)
