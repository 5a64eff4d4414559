"""What predicted embeddings are trained for, and which rows are compared.

Shapes: B images, Q queries, N_i objects of image i, M matched objects of the batch, G groups of
queries for the same objects, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from rsd2.layers import at_least_float32
from rsd2.modeling.denoising import DenoisingBatch
from rsd2.modeling.matcher import Targets
from rsd2.modeling.outputs import Matches

from .contrastive import contrastive_alignment_loss, gather_rows, smallest_group_count


@dataclass
class EmbeddedTargets(Targets):
    """Objects of one image with their embeddings.

    Attributes:
        embeddings: (N, D), unit length.
    """

    embeddings: torch.Tensor


class EmbeddingRegression:
    """Distance of the predicted embedding, brought to unit length, to the object's.

    Source: DETReg (arXiv 2106.04550), object embedding loss; the mean of absolute differences
    there, of squared ones in the rotated DETReg that MutDet (ECCV 2024) compares with.

    Args:
        distance: "mse" or "l1".
        weight: of the loss.
    """

    def __init__(self, distance: str = "mse", weight: float = 1.0) -> None:
        if distance not in ("mse", "l1"):
            raise ValueError(f"distance must be 'mse' or 'l1', got {distance!r}")
        self.distance, self.weight = distance, weight

    def __call__(
        self,
        predicted: torch.Tensor,
        objects: torch.Tensor,
        classes: torch.Tensor,
        normalizer: float,
    ) -> torch.Tensor:
        """Weighted loss.

        Args:
            predicted: (G, M, C).
            objects: (M, C).
            classes: (M,), not used.
            normalizer: pairs of all groups, averaged over processes, > 0.

        Returns:
            Scalar: the mean over channels and pairs; 0, but attached, without pairs.
        """
        difference = F.normalize(at_least_float32(predicted), dim=-1) - F.normalize(
            at_least_float32(objects), dim=-1
        )
        values = difference.square() if self.distance == "mse" else difference.abs()
        return self.weight * values.sum() / values.shape[-1] / normalizer


class ContrastiveAlignment:
    """Contrastive alignment over the pairs of a batch.

    Source: MutDet (ECCV 2024), contrastive alignment loss; negatives are the other matched
    objects of all images of one process.

    Args:
        temperature: tau, > 0.
        weight: of the loss.
        gather: take the negatives from all processes. Denoising then aligns as many groups as
            the process with the fewest has.
        mask_same_class: objects of one pseudo-class are not each other's negatives.
    """

    def __init__(
        self,
        temperature: float = 0.2,
        weight: float = 1.0,
        *,
        gather: bool = False,
        mask_same_class: bool = False,
    ) -> None:
        if temperature <= 0:
            raise ValueError(f"temperature must be positive, got {temperature}")
        self.temperature, self.weight = temperature, weight
        self.gather, self.mask_same_class = gather, mask_same_class

    def __call__(
        self,
        predicted: torch.Tensor,
        objects: torch.Tensor,
        classes: torch.Tensor,
        normalizer: float,
    ) -> torch.Tensor:
        """Weighted loss; with ``gather`` every process has to call it.

        Args:
            predicted: (G, M, C).
            objects: (M, C).
            classes: (M,) int64.
            normalizer: not used: the loss is a mean over the pairs it sees.

        Returns:
            Scalar, 0, but attached, without pairs.
        """
        if self.gather:
            # Every process has to gather as many rows as the others, else they wait for ever.
            groups = smallest_group_count(len(predicted), len(objects), objects.device)
            if len(predicted) < groups:  # a process without objects has no groups either
                predicted = predicted.expand(groups, -1, -1)
            rows = predicted[:groups].transpose(0, 1)
            predicted = gather_rows(at_least_float32(rows)).transpose(0, 1)
            objects, classes = gather_rows(at_least_float32(objects)), gather_rows(classes)

        return self.weight * contrastive_alignment_loss(
            predicted, objects, self.temperature, classes if self.mask_same_class else None
        )


@dataclass
class Pairs:
    """Predictions and the objects they stand for.

    Attributes:
        states: (G, M, C) of the predictions.
        embeddings: (M, D) of the objects.
        classes: (M,) pseudo-classes.
    """

    states: torch.Tensor
    embeddings: torch.Tensor
    classes: torch.Tensor


def matched_pairs(
    states: torch.Tensor,
    matches: Matches,
    embeddings: Sequence[torch.Tensor],
    targets: Sequence[Targets],
) -> Pairs:
    """Pairs of a one-to-one assignment.

    Args:
        states: (B, Q, C).
        matches: for every image (prediction indices, object indices).
        embeddings: B tensors (N_i, D).
        targets: B entries.

    Returns:
        One group of the M matched objects, image after image.
    """
    rows = [states[i, source] for i, (source, _) in enumerate(matches)]
    objects = [e[index] for e, (_, index) in zip(embeddings, matches)]
    classes = [t.labels[index] for t, (_, index) in zip(targets, matches)]
    return Pairs(torch.cat(rows)[None], torch.cat(objects), torch.cat(classes))


def denoising_pairs(
    states: torch.Tensor,
    noised: DenoisingBatch,
    embeddings: Sequence[torch.Tensor],
    targets: Sequence[Targets],
    first_rows: bool = False,
) -> Pairs:
    """Pairs of the positive denoising queries.

    Args:
        states: (B, D, C) of all denoising queries.
        noised: the queries.
        embeddings: B tensors (N_i, D).
        targets: B entries.
        first_rows: reproduce the official program, which strings the groups of image
            after image together and keeps the first sum(N_i) rows: right for one group only, else
            copies of the first image's objects are each other's negatives.

    Returns:
        G groups of all objects of the batch; with ``first_rows`` one group.
    """
    groups = noised.num_groups
    rows = [
        states[i, slots].unflatten(0, (groups, -1))
        if len(slots)
        else states.new_zeros(groups, 0, states.shape[-1])
        for i, (slots, _) in enumerate(noised.matches)
    ]

    if first_rows:
        count = sum(len(t) for t in targets)
        return Pairs(
            torch.cat([r.flatten(0, 1) for r in rows])[None, :count],
            torch.cat([e.repeat(groups, 1) for e in embeddings])[:count],
            torch.cat([t.labels.repeat(groups) for t in targets])[:count],
        )
    return Pairs(
        torch.cat(rows, dim=1), torch.cat(list(embeddings)), torch.cat([t.labels for t in targets])
    )
