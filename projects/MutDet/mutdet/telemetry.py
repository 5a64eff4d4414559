"""How well embeddings tell objects apart: by labels that they never saw, and in a training step.

Shapes: N pseudo-boxes of an image, M pseudo-boxes that lie on an object, in all images, or the
matched objects of a batch, D embedding channels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch.nn import functional as F

from rsd2.data.formats.pseudo_labels import PseudoLabels
from rsd2.ops import max_iou_rotated

from .label_recall import Truth

_CHUNK = 1024


@torch.no_grad()
def agreement(
    predicted: torch.Tensor, objects: torch.Tensor, images: torch.Tensor
) -> dict[str, float]:
    """Measure how well predicted embeddings tell the objects of a batch apart.

    Predictions and targets that encode nothing but the image agree very well and find nothing
    within it; hence the values within images.

    Args:
        predicted: (M, D), any length; row m belongs to object m.
        objects: (M, D) targets, any length, M > 0.
        images: (M,) int64, index of each object's image.

    Returns:
        ``retrieval``, the share of predictions whose own object is the nearest of the batch, and
        ``cosine``, the mean cosine with it. Where an image has two objects also, over such images:
        ``image_retrieval``, the share whose own object is the nearest of the same image,
        ``image_chance``, the same by chance, and ``target_cosine``, the mean cosine of different
        targets of an image.
    """
    predicted, objects = (F.normalize(one.float(), dim=-1) for one in (predicted, objects))
    cosine = predicted @ objects.T
    own = torch.arange(len(cosine), device=cosine.device)
    values = {
        "retrieval": (cosine.argmax(dim=1) == own).float().mean().item(),
        "cosine": cosine.diagonal().mean().item(),
    }

    same = images[:, None] == images[None]
    count = same.sum(dim=1)
    # An object that is alone in its image always finds itself.
    asked = count > 1
    if asked.any():
        nearest = cosine.masked_fill(~same, -torch.inf).argmax(dim=1)
        others = same.fill_diagonal_(False)
        values |= {
            "image_retrieval": (nearest == own)[asked].float().mean().item(),
            "image_chance": (1 / count[asked]).mean().item(),
            "target_cosine": (objects @ objects.T)[others].mean().item(),
        }
    return values


def describe_embeddings(
    records: Sequence[PseudoLabels], truth: Truth, iou_threshold: float = 0.5
) -> dict[str, float]:
    """Measure how well the embeddings of boxes on true objects tell their classes.

    Args:
        records: pseudo-labels with embeddings and clusters.
        truth: truth of the images; see ``label_recall``. Images without labels are left out.
        iou_threshold: > 0; a box lies on the object that it overlaps most, at this IoU or more.

    Returns:
        ``on_objects``, the number of boxes on true objects; ``retrieval``, the share of them whose
        most similar box in another image shows the same class, and ``retrieval_by_chance``;
        ``purity``, the share of them that show the commonest class of their cluster. A share of
        nothing is nan.
    """
    numbers: dict[str, int] = {}
    labels, images, embeddings, clusters = [], [], [], []
    for index, record in enumerate(records):
        found = truth(record.file_name)
        if found is None or not len(found[0]) or not len(record.boxes):
            continue

        pairs = (torch.from_numpy(boxes).double() for boxes in (record.boxes, found[0]))
        best = max_iou_rotated(*pairs)
        rows = np.flatnonzero(best.row_max.numpy() >= iou_threshold)
        names = [found[1][place] for place in best.row_argmax[rows].tolist()]

        labels += [numbers.setdefault(name, len(numbers)) for name in names]
        images += [index] * len(rows)
        embeddings.append(record.embeddings[rows])
        clusters.append(record.clusters[rows])

    if not labels:
        nothing = dict.fromkeys(("retrieval", "retrieval_by_chance", "purity"), float("nan"))
        return {"on_objects": 0, **nothing}

    classes = np.array(labels, dtype=np.int64)
    return {
        "on_objects": len(classes),
        **retrieval(np.concatenate(embeddings), classes, np.array(images)),
        "purity": purity(np.concatenate(clusters), classes),
    }


def retrieval(
    embeddings: np.ndarray, labels: np.ndarray, images: np.ndarray
) -> Mapping[str, float]:
    """Measure how often the most similar object of another image has the same class.

    Args:
        embeddings: (M, D) float32 unit vectors.
        labels: (M,) classes.
        images: (M,) index of the image of each.

    Returns:
        ``retrieval`` and ``retrieval_by_chance``, both in [0, 1]; nan if no other image has an
        object.
    """
    vectors, image, label = (torch.from_numpy(x) for x in (embeddings, images, labels))
    hits, asked, chance = 0, 0, 0.0
    # In chunks: all similarities of a hundred thousand boxes would not fit into memory.
    for start in range(0, len(vectors), _CHUNK):
        part = slice(start, start + _CHUNK)
        similarity = vectors[part] @ vectors.T
        # Another image only: overlapping boxes of one object would find each other.
        elsewhere = image[part, None] != image[None]
        nearest = similarity.masked_fill(~elsewhere, -torch.inf).argmax(dim=1)
        possible = elsewhere.any(dim=1)
        same = label[part, None] == label[None]
        hits += int((same.gather(1, nearest[:, None]).squeeze(1) & possible).sum())
        asked += int(possible.sum())

        shares = (same & elsewhere).sum(dim=1) / elsewhere.sum(dim=1).clamp(min=1)
        chance += float(shares[possible].sum())

    if not asked:
        return {"retrieval": float("nan"), "retrieval_by_chance": float("nan")}
    return {"retrieval": hits / asked, "retrieval_by_chance": chance / asked}


def purity(clusters: np.ndarray, labels: np.ndarray) -> float:
    """Compute the share of objects that have the commonest class of their cluster.

    Args:
        clusters: (M,) pseudo-classes, M > 0.
        labels: (M,) classes.

    Returns:
        A number in (0, 1].
    """
    counts = np.zeros((clusters.max() + 1, labels.max() + 1), dtype=np.int64)
    np.add.at(counts, (clusters, labels), 1)
    return float(counts.max(axis=1).sum() / len(labels))
