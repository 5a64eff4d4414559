"""Losses of the predicted embeddings, and the pairs that they compare.

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

NEGATIVES = ("batch", "image")


@dataclass
class EmbeddedTargets(Targets):
    """Objects of one image with their embeddings.

    Attributes:
        embeddings: (N, D), unit length.
    """

    embeddings: torch.Tensor


class EmbeddingRegression:
    """Distance between the normalised predicted embedding and that of the object.

    Source: DETReg (arXiv 2106.04550), object embedding loss; the mean of absolute differences
    there, of squared ones in the rotated DETReg that MutDet (ECCV 2024) compares with.

    The loss is a mean over the channels of unit vectors: with "mse" it is 2 (1 - cosine) / C,
    at 128 channels and a cosine of 0 just 0.016, which is lost beside detection losses of a
    hundred. ``weight`` = C makes it a sum over the channels, 2 (1 - cosine).

    Args:
        distance: "mse" or "l1".
        weight: weight of the loss; the original is 1.
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
        images: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Compute the weighted loss.

        Args:
            predicted: (G, M, C).
            objects: (M, C).
            classes: (M,), not used.
            normalizer: number of pairs of all groups, averaged over processes, > 0.
            images: (M,), not used.

        Returns:
            Scalar: the mean over channels and pairs; 0, but attached to the graph, without pairs.
        """
        difference = F.normalize(at_least_float32(predicted), dim=-1) - F.normalize(
            at_least_float32(objects), dim=-1
        )
        # Both have unit length: that is why rotated DETReg squares the difference, where DETReg
        # takes its absolute value.
        values = difference.square() if self.distance == "mse" else difference.abs()
        return self.weight * values.sum() / values.shape[-1] / normalizer


class ContrastiveAlignment:
    """Contrastive alignment over the pairs of a batch.

    Source: MutDet (ECCV 2024), contrastive alignment loss; negatives are the other matched
    objects of all images of one process. Predictions and targets can tell those of other images
    apart without telling objects apart, which "image" rules out.

    Args:
        temperature: tau, > 0.
        weight: weight of the loss.
        gather: whether to take the negatives from all processes. Denoising then aligns as many
            groups as the process with the fewest has.
        mask_same_class: whether to exclude objects of the same pseudo-class from the negatives.
        negatives: "batch": all other objects, as in the paper; "image": those of the same image.

    Raises:
        ValueError: a value is out of range, or two of them contradict each other.
    """

    def __init__(
        self,
        temperature: float = 0.2,
        weight: float = 1.0,
        *,
        gather: bool = False,
        mask_same_class: bool = False,
        negatives: str = "batch",
    ) -> None:
        if temperature <= 0:
            raise ValueError(f"temperature must be positive, got {temperature}")
        if negatives not in NEGATIVES:
            raise ValueError(f"negatives must be one of {NEGATIVES}, got {negatives!r}")
        if gather and negatives == "image":
            raise ValueError(
                "gather takes negatives from other processes, but negatives='image' allows only "
                "those of the same image; set gather=false"
            )
        self.temperature, self.weight = temperature, weight
        self.gather, self.mask_same_class = gather, mask_same_class
        self.negatives = negatives

    def __call__(
        self,
        predicted: torch.Tensor,
        objects: torch.Tensor,
        classes: torch.Tensor,
        normalizer: float,
        images: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Compute the weighted loss; with ``gather`` every process must call it.

        Args:
            predicted: (G, M, C).
            objects: (M, C).
            classes: (M,) int64.
            normalizer: not used: the loss is a mean over the pairs it sees.
            images: (M,) int64, index of each object's image in the batch; None if all are of one
                image.

        Returns:
            Scalar, 0, but attached to the graph, without pairs.
        """
        if self.gather:
            # Every process must gather as many rows as the others, or they wait for ever.
            groups = smallest_group_count(len(predicted), len(objects), objects.device)
            if len(predicted) < groups:  # a process without objects has no groups either
                predicted = predicted.expand(groups, -1, -1)
            rows = predicted[:groups].transpose(0, 1)
            predicted = gather_rows(at_least_float32(rows)).transpose(0, 1)
            objects, classes = gather_rows(at_least_float32(objects)), gather_rows(classes)

        return self.weight * contrastive_alignment_loss(
            predicted,
            objects,
            self.temperature,
            classes if self.mask_same_class else None,
            images if self.negatives == "image" else None,
        )


@dataclass
class Pairs:
    """Predictions and their objects.

    Attributes:
        states: (G, M, C) states of the predictions.
        embeddings: (M, D) embeddings of the objects.
        classes: (M,) pseudo-classes.
        images: (M,) int64, index of each object's image in the batch.
    """

    states: torch.Tensor
    embeddings: torch.Tensor
    classes: torch.Tensor
    images: torch.Tensor


def matched_pairs(
    states: torch.Tensor,
    matches: Matches,
    embeddings: Sequence[torch.Tensor],
    targets: Sequence[Targets],
) -> Pairs:
    """Collect the pairs of a one-to-one assignment.

    Args:
        states: (B, Q, C) states of the queries.
        matches: pairs of (prediction indices, object indices), one per image.
        embeddings: B tensors (N_i, D).
        targets: the objects of the B images.

    Returns:
        One group of the M matched objects, image after image.
    """
    rows = [states[i, source] for i, (source, _) in enumerate(matches)]
    objects = [e[index] for e, (_, index) in zip(embeddings, matches)]
    classes = [t.labels[index] for t, (_, index) in zip(targets, matches)]
    images = _images_of([len(one) for one in objects], states.device)
    return Pairs(torch.cat(rows)[None], torch.cat(objects), torch.cat(classes), images)


def _images_of(counts: Sequence[int], device: torch.device) -> torch.Tensor:
    """Return (sum of counts,) the index of the image of every object."""
    index = torch.arange(len(counts), device=device)
    return index.repeat_interleave(torch.tensor(counts, device=device))


def denoising_pairs(
    states: torch.Tensor,
    noised: DenoisingBatch,
    embeddings: Sequence[torch.Tensor],
    targets: Sequence[Targets],
    first_rows: bool = False,
) -> Pairs:
    """Collect the pairs of the positive denoising queries.

    Args:
        states: (B, D, C) states of all denoising queries.
        noised: the denoising queries.
        embeddings: B tensors (N_i, D).
        targets: the objects of the B images.
        first_rows: whether to reproduce the official program, which joins the groups of image
            after image together and keeps the first sum(N_i) rows: right for one group only, else
            copies of the first image's objects are each other's negatives.

    Returns:
        G groups of all objects of the batch; with ``first_rows`` one group.
    """
    groups = noised.num_groups
    rows = [
        # Slots run group by group. An image without objects has no slots, which unflatten cannot
        # split.
        states[i, slots].unflatten(0, (groups, -1))
        if len(slots)
        else states.new_zeros(groups, 0, states.shape[-1])
        for i, (slots, _) in enumerate(noised.matches)
    ]

    counts = [len(t) for t in targets]
    if first_rows:
        count = sum(counts)
        return Pairs(
            torch.cat([r.flatten(0, 1) for r in rows])[None, :count],
            torch.cat([e.repeat(groups, 1) for e in embeddings])[:count],
            torch.cat([t.labels.repeat(groups) for t in targets])[:count],
            _images_of([groups * n for n in counts], states.device)[:count],
        )

    return Pairs(
        torch.cat(rows, dim=1),
        torch.cat(list(embeddings)),
        torch.cat([t.labels for t in targets]),
        _images_of(counts, states.device),
    )
