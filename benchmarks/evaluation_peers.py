"""Peers of the evaluators of tiny objects: pycocotools, and TinyPerson's rules in Python.

The published evaluation of TinyPerson is pycocotools' class with the matching of one image
rewritten in Python. ``TinyCocoEval`` reimplements that class from the rules,
with pycocotools' own loops around it.
"""

from __future__ import annotations

import contextlib
import io

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from rsd2.evaluation import BoxDetections, BoxTruth, TinyProtocol
from rsd2.evaluation.scoring.aitod import (
    AITOD_AREA_RANGES,
    AITOD_IOU_THRESHOLDS,
    AITOD_MAX_DETECTIONS,
)


class TinyCocoEval(COCOeval):
    """pycocotools with uncertain objects ignored and detections ignored by IoD."""

    def _prepare(self) -> None:
        super()._prepare()
        for objects in self._gts.values():
            for item in objects:
                item["ignore"] = bool(item["flagged"] or item["uncertain"])

    def evaluateImg(self, imgId: int, catId: int, aRng: list, maxDet: int) -> dict | None:
        """Match the detections of one image and class, in pycocotools' form of the result."""
        objects, detections = self._gts[imgId, catId], self._dts[imgId, catId]
        if not objects and not detections:
            return None

        ignored = [o["ignore"] or not aRng[0] <= o["area"] <= aRng[1] for o in objects]
        # Stable sorts, as in pycocotools: objects that count come before ignored ones.
        order = np.argsort(ignored, kind="mergesort")
        ignored = [bool(ignored[k]) for k in order]
        ranking = np.argsort([-d["score"] for d in detections], kind="mergesort")[:maxDet]

        ious = self.ious[imgId, catId]
        ious = ious[:, order] if len(ious) else ious
        shape = (len(self.params.iouThrs), len(ranking))

        found, forgiven = np.zeros(shape), np.zeros(shape, dtype=bool)
        taken = np.zeros((len(self.params.iouThrs), len(objects)))
        for t, threshold in enumerate(self.params.iouThrs):
            for d, number in enumerate(ranking):
                best, best_iou = -1, min(threshold, 1 - 1e-10)
                # Only objects that count are taken here; TinyPerson forgives the rest by IoD
                # below.
                for g in range(len(objects)):
                    if taken[t, g] or ignored[g]:
                        continue
                    if ious[d, g] >= best_iou:
                        best, best_iou = g, ious[d, g]

                detection = detections[number]
                if best >= 0:
                    found[t, d], taken[t, best] = objects[order[best]]["id"], detection["id"]
                    continue

                for g in range(len(objects)):
                    if ignored[g]:
                        box = objects[order[g]]["bbox"]
                        ratio = box[2] * box[3] / detection["area"]
                        iod = ious[d, g] / (1 + ious[d, g]) * (1 + ratio)
                        # Recovering the intersection from the IoU costs a few roundings.
                        if iod >= threshold - 1e-12:
                            forgiven[t, d] = True

                if not aRng[0] <= detection["area"] <= aRng[1]:
                    forgiven[t, d] = True

        return {
            "image_id": imgId,
            "category_id": catId,
            "aRng": aRng,
            "maxDet": maxDet,
            "dtIds": [detections[k]["id"] for k in ranking],
            "gtIds": [objects[k]["id"] for k in order],
            "dtMatches": found,
            "gtMatches": taken,
            "dtScores": [detections[k]["score"] for k in ranking],
            "gtIgnore": np.array(ignored),
            "dtIgnore": forgiven,
        }


def make_data(
    num_images: int, num_objects: int, num_detections: int, num_classes: int = 1, seed: int = 0
) -> tuple[BoxTruth, BoxDetections]:
    """Invent tiny objects and the detections of a mediocre detector.

    Args:
        num_images: number of images of 1280 x 720 pixels.
        num_objects: mean number of objects in an image.
        num_detections: number of detections in an image.
        num_classes: number of classes.
        seed: seed of the random numbers.

    Returns:
        (ground truth with ignored and uncertain objects, detections).
    """
    rng = np.random.default_rng(seed)
    image = np.repeat(np.arange(num_images), rng.poisson(num_objects, num_images))
    count = len(image)

    size = np.exp(rng.uniform(np.log(2.5), np.log(45), count))
    aspect = np.exp(rng.normal(0, 0.3, count))
    sides = np.stack([size * aspect, size / aspect], axis=1)
    corner = rng.uniform(0, (1230, 670), (count, 2))
    boxes = np.concatenate([corner, corner + sides], axis=1)
    label = rng.integers(num_classes, size=count)
    ignore, uncertain = rng.uniform(size=count) < 0.08, rng.uniform(size=count) < 0.1

    names = tuple(f"class{k}" for k in range(num_classes))
    ids = tuple(f"{k:06d}" for k in range(num_images))
    truth = BoxTruth(ids, names, image, label, boxes, sides.prod(axis=1), ignore, uncertain)

    # Two thirds of the detections lie near objects, the rest anywhere.
    parts = [np.zeros((0, 7))]
    for number in range(num_images):
        own = np.flatnonzero(image == number) if count < 10_000 else np.arange(
            *np.searchsorted(image, [number, number + 1])
        )  # fmt: skip
        near = 2 * num_detections // 3 if len(own) else 0

        chosen = rng.choice(own, near) if near else own[:0]
        jitter = rng.normal(0, 0.12, (near, 4)) * np.tile(sides[chosen], 2)
        hits = boxes[chosen] + jitter
        hits[:, 2:] = np.maximum(hits[:, 2:], hits[:, :2] + 0.5)

        free = num_detections - near
        start = rng.uniform(0, (1230, 670), (free, 2))
        extent = np.exp(rng.uniform(np.log(2.5), np.log(45), (free, 2)))
        found = np.concatenate([hits, np.concatenate([start, start + extent], axis=1)])
        labels = np.concatenate([label[chosen], rng.integers(num_classes, size=free)])
        scores = rng.uniform(0.05, 1, num_detections)
        head = np.full(num_detections, number)
        parts.append(np.column_stack([head, labels, scores, found]))

    table = np.concatenate(parts)
    columns = (table[:, 0].astype(np.int64), table[:, 1].astype(np.int64), table[:, 2])
    return truth, BoxDetections(*columns, table[:, 3:])


def to_coco(truth: BoxTruth, detections: BoxDetections) -> tuple[COCO, COCO]:
    """Put arrays into pycocotools' objects.

    Args:
        truth: ground truth.
        detections: detections on its images.

    Returns:
        (ground truth, detections).
    """
    images = [{"id": k + 1} for k in range(len(truth.image_ids))]
    categories = [{"id": k + 1, "name": name} for k, name in enumerate(truth.class_names)]
    objects = [
        {"id": n, **_entry(i, c, b), "area": a, "iscrowd": 0, "flagged": g, "uncertain": u}
        for n, (i, c, b, a, g, u) in enumerate(
            zip(
                *(
                    values.tolist()
                    for values in (
                        truth.image_index, truth.class_index, truth.boxes, truth.areas,
                        truth.ignore, truth.uncertain,
                    )
                )
            ),
            start=1,
        )
    ]  # fmt: skip

    columns = (values.tolist() for values in (*detections, detections.areas()))
    found = [
        {"id": n, **_entry(i, c, b), "area": a, "score": s, "iscrowd": 0}
        for n, (i, c, s, b, a) in enumerate(zip(*columns), start=1)
    ]

    both = []
    for entries in (objects, found):
        coco = COCO()
        coco.dataset = {"images": images, "annotations": entries, "categories": categories}
        with contextlib.redirect_stdout(io.StringIO()):
            coco.createIndex()
        both.append(coco)

    return both[0], both[1]


def run_tiny(ground_truth: COCO, detections: COCO, protocol: TinyProtocol) -> np.ndarray:
    """Compute TinyPerson's AP by pycocotools with Python matching.

    Args:
        ground_truth: ground truth from ``to_coco``.
        detections: detections from ``to_coco``.
        protocol: protocol of the evaluation.

    Returns:
        (T, A, K) in [0, 1], ``nan`` where undefined.
    """
    areas = [[low**2, high**2] for low, high in protocol.size_ranges.values()]
    limit = [protocol.max_detections]
    return _run(
        TinyCocoEval(ground_truth, detections, "bbox"), protocol.iou_thresholds, areas, limit
    )


def run_aitod(ground_truth: COCO, detections: COCO) -> np.ndarray:
    """Compute AI-TOD's AP by pycocotools.

    Args:
        ground_truth: ground truth from ``to_coco``.
        detections: detections from ``to_coco``.

    Returns:
        (T, A, K) in [0, 1], ``nan`` where undefined.
    """
    areas = [list(ends) for ends in AITOD_AREA_RANGES.values()]
    scorer = COCOeval(ground_truth, detections, "bbox")
    return _run(scorer, AITOD_IOU_THRESHOLDS, areas, list(AITOD_MAX_DETECTIONS))


def _run(scorer: COCOeval, thresholds: object, areas: list, limits: list) -> np.ndarray:
    scorer.params.iouThrs = np.array(thresholds)
    scorer.params.areaRng, scorer.params.maxDets = areas, limits
    scorer.params.areaRngLbl = [str(k) for k in range(len(areas))]
    # pycocotools prints its progress, which is no part of the work.
    with contextlib.redirect_stdout(io.StringIO()):
        scorer.evaluate()
        scorer.accumulate()

    curves = scorer.eval["precision"][..., -1]  # T, recall points, K, A
    return np.where(curves < 0, np.nan, curves).mean(axis=1).transpose(0, 2, 1)


def _entry(image: int, label: int, box: list[float]) -> dict:
    x0, y0, x1, y1 = box
    return {"image_id": image + 1, "category_id": label + 1, "bbox": [x0, y0, x1 - x0, y1 - y0]}
