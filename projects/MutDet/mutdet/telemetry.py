"""How good pseudo-labels are, seen with the true labels that the pre-training never sees.

Shapes: N pseudo-boxes of an image, T true objects of it, M pseudo-boxes that lie on an object, in
all images, D embedding channels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath

import numpy as np
import torch

from rsd2.data.pseudo_labels import PseudoLabels
from rsd2.ops import box_iou_rotated

_CHUNK = 1024


def describe_pseudo_labels(
    records: Sequence[PseudoLabels], truth: Sequence[dict], iou_threshold: float = 0.5
) -> dict[str, float]:
    """Measure recall of the boxes and how well embeddings and clusters tell classes apart.

    Args:
        records: pseudo-labels of the images of ``truth``, found by the name of the file.
        truth: dataset dicts of the true labels.
        iou_threshold: a box lies on an object at this IoU or more.

    Returns:
        ``boxes_per_image``; ``recall``, the share of true objects on which a box lies;
        ``on_object``, the share of boxes that lie on one; with embeddings ``retrieval``, the share
        of those boxes whose most similar box in another image shows the same class, and
        ``retrieval_by_chance``; with clusters ``purity``, the share of those boxes that show the
        commonest class of their cluster. An undefined share is nan.

    Raises:
        ValueError: if an image has no pseudo-labels.
    """
    by_name = {PurePath(record.file_name).name: record for record in records}
    found, total, boxes = 0, 0, 0
    classes, images, rows = [], [], []
    for index, item in enumerate(truth):
        name = PurePath(item["file_name"]).name
        if name not in by_name:
            raise ValueError(f"no pseudo-labels of {name}; they are of other images")
        record = by_name[name]
        objects = np.array([a["bbox"] for a in item["annotations"]]).reshape(-1, 5)
        total, boxes = total + len(objects), boxes + len(record.boxes)
        if not len(objects) or not len(record.boxes):
            continue
        pairs = (torch.from_numpy(x).double() for x in (record.boxes, objects))
        iou = box_iou_rotated(*pairs).numpy()
        found += int((iou.max(axis=0) >= iou_threshold).sum())
        for row in np.flatnonzero(iou.max(axis=1) >= iou_threshold):
            classes.append(item["annotations"][iou[row].argmax()]["category_id"])
            images.append(index)
            rows.append((record, row))
    result = {
        "boxes_per_image": boxes / max(len(truth), 1),
        "recall": found / total if total else float("nan"),
        "on_object": len(rows) / boxes if boxes else float("nan"),
    }
    labels = np.array(classes, dtype=np.int64)
    if rows and rows[0][0].embeddings is not None:
        embeddings = np.stack([record.embeddings[row] for record, row in rows])
        result |= retrieval(embeddings, labels, np.array(images))
    if rows and rows[0][0].clusters is not None:
        result["purity"] = purity(np.array([r.clusters[row] for r, row in rows]), labels)
    return result


def retrieval(
    embeddings: np.ndarray, labels: np.ndarray, images: np.ndarray
) -> Mapping[str, float]:
    """Accuracy of the class of the most similar object of another image.

    Args:
        embeddings: (M, D) float32 unit vectors.
        labels: (M,) classes.
        images: (M,) number of the image of each.

    Returns:
        ``retrieval`` and ``retrieval_by_chance``, both in [0, 1]; nan where no other image has an
        object.
    """
    vectors, image, label = (torch.from_numpy(x) for x in (embeddings, images, labels))
    hits, asked, chance = 0, 0, 0.0
    for start in range(0, len(vectors), _CHUNK):
        part = slice(start, start + _CHUNK)
        similarity = vectors[part] @ vectors.T
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
    """Share of objects that show the commonest class of their cluster.

    Args:
        clusters: (M,) pseudo-classes, M > 0.
        labels: (M,) classes.

    Returns:
        in (0, 1].
    """
    counts = np.zeros((clusters.max() + 1, labels.max() + 1), dtype=np.int64)
    np.add.at(counts, (clusters, labels), 1)
    return float(counts.max(axis=1).sum() / len(labels))
