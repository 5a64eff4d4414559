"""Contrastive alignment: a predicted embedding must find its object among all, and vice versa.

Shapes: G groups of queries that stand for the same objects (1 without denoising), M objects,
C channels.
"""

from __future__ import annotations

import torch
from detectron2.utils import comm
from torch import distributed
from torch.nn import functional as F

from rsd2.layers import at_least_float32


def contrastive_alignment_loss(
    predicted: torch.Tensor,
    objects: torch.Tensor,
    temperature: float = 0.2,
    classes: torch.Tensor | None = None,
    images: torch.Tensor | None = None,
) -> torch.Tensor:
    """Compute the symmetric InfoNCE between predictions and objects, times 2 tau.

    Source: MutDet (ECCV 2024), contrastive alignment loss: cross entropy of every prediction over
    all objects plus cross entropy of every object over all predictions.

    Args:
        predicted: (G, M, C), any length; row m belongs to object m.
        objects: (M, C), any length.
        temperature: tau, > 0.
        classes: (M,) int64; other objects of the same class do not count as negatives. None: all
            others do, as in the paper.
        images: (M,) int64; objects of other images do not count as negatives. None: they do, as in
            the paper.

    Returns:
        Scalar >= 0, the mean over pairs and groups; 0, but attached to the graph, without pairs.
    """
    predicted, objects = at_least_float32(predicted), at_least_float32(objects)
    groups, pairs = predicted.shape[:2]
    if groups * pairs == 0:
        return 0.0 * (predicted.sum() + objects.sum())

    # Cosines over tau reach 5 and more before the exponential: half precision is too coarse.
    with torch.autocast(predicted.device.type, enabled=False):
        logits = F.normalize(predicted, dim=-1) @ F.normalize(objects, dim=-1).T / temperature

    left_out = torch.zeros_like(logits[0], dtype=torch.bool)
    if classes is not None:
        left_out |= classes[:, None] == classes[None]
    if images is not None:
        left_out |= images[:, None] != images[None]
    # An object must stay its own positive.
    left_out.fill_diagonal_(False)
    logits = logits.masked_fill(left_out, -float("inf"))

    own = torch.arange(pairs, device=logits.device).expand(groups, -1)
    return (
        2
        * temperature
        * (F.cross_entropy(logits.transpose(1, 2), own) + F.cross_entropy(logits, own))
    )


def gather_rows(rows: torch.Tensor) -> torch.Tensor:
    """Gather the rows of all processes; only the own rows carry a gradient.

    Where every process computes the same function of all rows, this makes the gradient that
    distributed training averages equal to that of one process with all of them: own rows receive
    their gradient times the number of processes.

    Args:
        rows: (M, ...) of this process; M differs between processes and may be 0. Every process
            must call it.

    Returns:
        (sum of M, ...), process after process.
    """
    world = comm.get_world_size()
    if world == 1:
        return rows

    # all_gather needs equal shapes: exchange the lengths, pad to the longest, cut afterwards.
    count = torch.tensor([len(rows)], device=rows.device)
    counts = [torch.zeros_like(count) for _ in range(world)]
    distributed.all_gather(counts, count)
    lengths = [int(c) for c in counts]
    padded = rows.new_zeros(max(lengths), *rows.shape[1:])
    padded[: len(rows)] = rows.detach()
    parts = [torch.zeros_like(padded) for _ in range(world)]
    distributed.all_gather(parts, padded)
    parts = [part[:length] for part, length in zip(parts, lengths)]
    if rows.requires_grad:
        # the value of the rows, the gradient of world * rows
        parts[comm.get_rank()] = rows.detach() + world * (rows - rows.detach())

    return torch.cat(parts)


def smallest_group_count(groups: int, pairs: int, device: torch.device) -> int:
    """Return the number of groups that every process with objects has; every process must call it.

    Args:
        groups: number of groups of this process, >= 1.
        pairs: M of this process; a process without pairs does not count.
        device: device of the reduction.

    Returns:
        The smallest number of groups, at least 1.
    """
    if comm.get_world_size() == 1:
        return groups

    unlimited = torch.iinfo(torch.int64).max
    # A process without pairs reports the largest integer, which loses against any other.
    least = torch.tensor([groups if pairs else unlimited], device=device)
    distributed.all_reduce(least, op=distributed.ReduceOp.MIN)
    return 1 if int(least) == unlimited else int(least)
