"""Data that the stages of the detector hand to each other.

Shapes: B images, S tokens of all levels together, Q queries, D denoising slots, C channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .denoising import DenoisingBatch
from .matcher import Predictions

Matches = list[tuple[torch.Tensor, torch.Tensor]]


@dataclass
class ImageGeometry:
    """Scales between normalised box coordinates, images and the padded batch.

    Attributes:
        box_scale: (B, 4) pixels per unit of cx, cy, w, h.
        output_scale: (B, 4) the same scale as detections use it.
        box_to_image: (B, 2) factors (x, y) from box coordinates to the padded batch's [0, 1].
        valid_extent: (B, 2) share (x, y) of the padded batch that is image.
    """

    box_scale: torch.Tensor
    output_scale: torch.Tensor
    box_to_image: torch.Tensor
    valid_extent: torch.Tensor


@dataclass
class EncodedImages:
    """Encoded images, the input of the decoder.

    Attributes:
        memory: (B, S, C).
        spatial_shapes: (height, width) of every level.
        padding_mask: (B, S) bool, True = padding; None if no image is padded.
        geometry: geometry of the batch.
    """

    memory: torch.Tensor
    spatial_shapes: list[tuple[int, int]]
    padding_mask: torch.Tensor | None
    geometry: ImageGeometry


@dataclass
class Proposals:
    """First stage: predictions of all tokens, and the references that the best of them give.

    Attributes:
        predictions: predictions of the S tokens.
        boxes: (B, Q, 4) cx, cy, w, h in normalised box coordinates, detached.
        angles: (B, Q) degrees, detached.
    """

    predictions: Predictions
    boxes: torch.Tensor
    angles: torch.Tensor


@dataclass
class DetectorOutputs:
    """Everything that losses are computed from.

    Attributes:
        proposals: predictions of the S tokens.
        layers: predictions of the Q queries, one entry per decoder layer.
        states: (B, Q, C) normalised states that the last of them were made from.
        denoised: predictions of the D denoising queries, one entry per decoder layer; empty
            without them.
        denoised_states: (B, D, C) as ``states``; D is 0 without denoising queries.
        noised: the denoising queries, None without them.
    """

    proposals: Predictions
    layers: list[Predictions]
    states: torch.Tensor
    denoised: list[Predictions]
    denoised_states: torch.Tensor
    noised: DenoisingBatch | None


@dataclass
class Normalizers:
    """Divisors of sums over positives, see `criterion.global_normalizers`.

    Attributes:
        tokens: divisor of the first stage.
        queries: divisor of a decoder layer.
        denoising: divisor of a layer's denoising queries.
    """

    tokens: float
    queries: float
    denoising: float


@dataclass
class Assignment:
    """Matches of predictions and objects that the losses used.

    Attributes:
        tokens: for every image (token indices, object indices).
        queries: the same for the queries of the last decoder layer.
    """

    tokens: Matches
    queries: Matches
