"""Contrastive denoising queries made from the ground truth.

Shapes: B images, N_i objects of image i, max_N the most of them, G groups, D = 2 * max_N * G
denoising slots (every group: positives, then negatives), Q matching queries, C channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from rsd2.structures import wrap_angle

from .matcher import Targets
from .quirks import NO_QUIRKS, DetectorQuirks

LOGIT_EPS = 1e-3


@dataclass
class DenoisingBatch:
    """Queries that start at noised objects, and what they have to restore.

    Attributes:
        content: (B, D, C) label embeddings.
        boxes: (B, D, 4) noised cx, cy, w, h, normalised, in [0, 1].
        angles: (B, D) noised angles, degrees.
        attention_mask: (D + Q, D + Q) bool, True where attention is forbidden.
        empty_slots: (B, D) bool, True for slots that belong to no object of the image.
        matches: for every image (slot indices, object indices) of the positives.
        num_groups: G.
    """

    content: torch.Tensor
    boxes: torch.Tensor
    angles: torch.Tensor
    attention_mask: torch.Tensor
    empty_slots: torch.Tensor
    matches: list[tuple[torch.Tensor, torch.Tensor]]
    num_groups: int


class DenoisingQueries(nn.Module):
    """Make contrastive denoising queries.

    Source: DN-DETR (arXiv 2203.01305), DINO (arXiv 2203.03605) section 3.3; rotated boxes as in
    ARS-DETR (arXiv 2303.04989). With several processes G follows the fullest image of each
    process, so that the gradient differs from that of one process with the whole batch.

    Args:
        num_classes: K.
        embed_dim: C.
        num_queries: wanted positives per image; G = max(1, num_queries // max_N).
        label_noise: probability of a random class, [0, 1].
        box_noise: corners of the unrotated rectangle move by up to this share of half a side
            (positives) or once to twice as far (negatives).
        angle_noise: share of 180 degrees by which angles move at most (positives), or once to
            twice as far (negatives).
        quirks: ``multiplied_angle_noise``, and ``trained_empty_slots`` for the detector to read.
    """

    def __init__(
        self,
        num_classes: int,
        embed_dim: int = 256,
        num_queries: int = 100,
        label_noise: float = 0.25,
        box_noise: float = 0.4,
        angle_noise: float = 0.02,
        quirks: DetectorQuirks = NO_QUIRKS,
    ) -> None:
        super().__init__()
        self.num_classes, self.num_queries = num_classes, num_queries
        self.label_noise, self.box_noise, self.angle_noise = label_noise, box_noise, angle_noise
        self.quirks = quirks
        self.label_embedding = nn.Embedding(num_classes, embed_dim)

    def num_groups(self, max_objects: int) -> int:
        """G for the fullest image of a batch."""
        return max(1, self.num_queries // max(max_objects, 1))

    def forward(self, targets: list[Targets], num_matching: int) -> DenoisingBatch | None:
        """Noise the objects of a batch.

        Args:
            targets: B entries.
            num_matching: Q, the number of ordinary queries that follow the denoising ones.

        Returns:
            The queries, or None when no image has an object.
        """
        max_objects = max((len(target) for target in targets), default=0)
        if max_objects == 0:
            return None

        groups, device = self.num_groups(max_objects), targets[0].boxes.device
        slots = 2 * max_objects * groups
        batch = len(targets)
        labels = torch.zeros(batch, slots, dtype=torch.int64, device=device)
        # An empty slot is a box in the middle of the image with no content.
        boxes = torch.full((batch, slots, 4), 0.5, device=device)
        angles = torch.zeros(batch, slots, device=device)
        empty = torch.ones(batch, slots, dtype=torch.bool, device=device)

        matches = []
        for i, target in enumerate(targets):
            index = torch.arange(len(target), device=device)
            half = torch.arange(2 * groups, device=device)[:, None] * max_objects + index
            where, source = half.flatten(), index.repeat(2 * groups)
            negative = (torch.arange(2 * groups, device=device) % 2 == 1)[:, None]
            negative = negative.expand(-1, len(target)).flatten()
            labels[i, where] = self._noise_labels(target.labels[source])
            noised = self._noise_boxes(target.boxes[source].float(), negative)
            boxes[i, where], angles[i, where] = noised[:, :4], noised[:, 4]
            empty[i, where] = False
            matches.append((where[~negative], source[~negative]))

        content = self.label_embedding(labels).masked_fill(empty[..., None], 0.0)
        mask = self._attention_mask(groups, max_objects, num_matching, device)
        return DenoisingBatch(content, boxes, angles, mask, empty, matches, groups)

    def _noise_labels(self, labels: torch.Tensor) -> torch.Tensor:
        flip = torch.rand(labels.shape, device=labels.device) < self.label_noise
        return torch.where(flip, torch.randint_like(labels, self.num_classes), labels)

    def _noise_boxes(self, boxes: torch.Tensor, negative: torch.Tensor) -> torch.Tensor:
        def amount(shape: tuple[int, ...]) -> torch.Tensor:
            sign = torch.randint(0, 2, shape, device=boxes.device) * 2.0 - 1.0
            size = torch.rand(shape, device=boxes.device)
            return sign * (size + negative.view(-1, *[1] * (len(shape) - 1)))

        # Corners move, so that centre and sides change together.
        half = boxes[:, 2:4].repeat(1, 2) / 2
        corners = torch.cat(
            [boxes[:, :2] - boxes[:, 2:4] / 2, boxes[:, :2] + boxes[:, 2:4] / 2], dim=1
        )
        corners = corners + amount(tuple(corners.shape)) * half * self.box_noise
        corners = corners.clamp(0.0, 1.0)
        center, sides = (corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]

        turn = amount((len(boxes),)) * self.angle_noise
        if self.quirks.multiplied_angle_noise:
            angles = boxes[:, 4] * (1 + turn)
        else:
            angles = boxes[:, 4] + 180 * turn

        # References live in logit space, whose ends are kept away from 0 and 1.
        boxes = torch.cat([center, sides], dim=1).clamp(LOGIT_EPS, 1 - LOGIT_EPS)
        return torch.cat([boxes, wrap_angle(angles)[:, None]], dim=1)

    @staticmethod
    def _attention_mask(
        groups: int, max_objects: int, num_matching: int, device: torch.device
    ) -> torch.Tensor:
        slots = 2 * max_objects * groups
        group = torch.arange(slots, device=device) // (2 * max_objects)
        mask = torch.zeros(
            slots + num_matching, slots + num_matching, dtype=torch.bool, device=device
        )
        # Matching queries see no denoising query, nor does a group see another.
        mask[slots:, :slots] = True
        mask[:slots, :slots] = group[:, None] != group[None]
        return mask
