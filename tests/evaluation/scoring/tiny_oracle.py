"""TinyPerson's rules in plain loops, as slow and simple as can be.

Boxes are (x0, y0, x1, y1).
"""

from __future__ import annotations

import math


def iou_and_iod(detection: tuple, other: tuple) -> tuple[float, float]:
    """Intersection over union, and over the area of the detection."""
    width = min(detection[2], other[2]) - max(detection[0], other[0])
    height = min(detection[3], other[3]) - max(detection[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0, 0.0
    shared = width * height
    own = (detection[2] - detection[0]) * (detection[3] - detection[1])
    its = (other[2] - other[0]) * (other[3] - other[1])
    return shared / (own + its - shared), shared / own


def flag_image(
    objects: list[dict],
    detections: list[dict],
    threshold: float,
    limits: tuple[float, float],
    *,
    use_iod: bool = True,
    iod_threshold: float | None = None,
    strict_iod: bool = False,
    ignore_uncertain: bool = True,
    drop_by_own_size: bool = True,
    iod_of=None,
) -> list[tuple[float, str]]:
    """(score, "true" | "false" | "ignored") of each detection of one image and class.

    ``objects``: box, area, ignore, uncertain. ``detections``: box, score; in decreasing score.
    """
    low, high = limits[0] ** 2, limits[1] ** 2
    ignored = []
    for item in objects:
        flagged = item["ignore"] or (ignore_uncertain and item["uncertain"])
        ignored.append(flagged or item["area"] < low or item["area"] > high)
    taken = [False] * len(objects)
    flags = []
    for detection in detections:
        best, best_overlap = None, min(threshold, 1 - 1e-10)
        for k, item in enumerate(objects):
            if ignored[k] or taken[k]:
                continue
            overlap = iou_and_iod(detection["box"], item["box"])[0]
            if overlap >= best_overlap:
                best, best_overlap = k, overlap
        if best is not None:
            taken[best] = True
            flags.append((detection["score"], "true"))
            continue
        forgiven = False
        if use_iod:
            limit = threshold if iod_threshold is None else iod_threshold
            for k, item in enumerate(objects):
                share = iou_and_iod(detection["box"], item["box"])[1]
                if iod_of is not None:
                    share = iod_of(share, detection["box"], item["box"])
                if ignored[k] and (share > limit if strict_iod else share >= limit):
                    forgiven = True
        else:
            best, best_overlap = None, min(threshold, 1 - 1e-10)
            for k, item in enumerate(objects):
                if not ignored[k] or taken[k]:
                    continue
                overlap = iou_and_iod(detection["box"], item["box"])[0]
                if overlap >= best_overlap:
                    best, best_overlap = k, overlap
            if best is not None:
                taken[best] = forgiven = True
        x0, y0, x1, y1 = detection["box"]
        area = max(x1 - x0, 0) * max(y1 - y0, 0)
        if drop_by_own_size and (area < low or area > high):
            forgiven = True
        flags.append((detection["score"], "ignored" if forgiven else "false"))
    return flags


def count_objects(images: list[dict], limits: tuple[float, float], ignore_uncertain: bool) -> int:
    """Objects of one class that have to be found."""
    return sum(
        not item["ignore"]
        and not (ignore_uncertain and item["uncertain"])
        and limits[0] ** 2 <= item["area"] <= limits[1] ** 2
        for image in images
        for item in image["objects"]
    )


def rank(image: dict, max_detections: int) -> list[dict]:
    """The best detections of an image."""
    return sorted(image["detections"], key=lambda d: -d["score"])[:max_detections]


def average_precision(
    images: list[dict],
    threshold: float,
    limits: tuple[float, float],
    max_detections: int,
    use_iod: bool = True,
    ignore_uncertain: bool = True,
) -> tuple[float, float]:
    """(AP over 101 recall points, greatest recall) of one class."""
    flags, positives = [], count_objects(images, limits, ignore_uncertain)
    for image in images:
        flags += flag_image(
            image["objects"],
            rank(image, max_detections),
            threshold,
            limits,
            use_iod=use_iod,
            ignore_uncertain=ignore_uncertain,
        )
    if positives == 0:
        return math.nan, math.nan
    flags = [flag for flag in sorted(flags, key=lambda f: -f[0]) if flag[1] != "ignored"]
    curve, found = [], 0
    for index, (_, kind) in enumerate(flags):
        found += kind == "true"
        curve.append((found / positives, found / (index + 1)))
    total = 0.0
    for k in range(101):
        point = k * 0.01 if k < 100 else 1.0  # the doubles that COCO compares with
        total += max((p for r, p in curve if r >= point), default=0.0)
    return total / 101, found / positives


def miss_rate(
    images: list[dict], threshold: float, limits: tuple[float, float], quirks: bool = False
) -> float:
    """Log-average miss rate of one class."""
    low, high = limits[0] / 1.25, limits[1] * 1.25

    def twice(share: float, detection: tuple, other: tuple) -> float:
        own = (detection[2] - detection[0]) * (detection[3] - detection[1])
        its = (other[2] - other[0]) * (other[3] - other[1])
        return share / (1 + share) * (1 + its / own)

    flags, positives = [], count_objects(images, limits, True)
    for image in images:
        near = []
        for detection in rank(image, 1000):
            x0, y0, x1, y1 = detection["box"]
            size = math.sqrt(max(x1 - x0, 0) * max(y1 - y0, 0))
            if low <= size < high:
                near.append(detection)
        flags += flag_image(
            image["objects"],
            near,
            threshold,
            limits,
            iod_threshold=0.5,
            strict_iod=True,
            drop_by_own_size=False,
            iod_of=twice if quirks else None,
        )
    if positives == 0:
        return math.nan
    flags = [flag for flag in sorted(flags, key=lambda f: -f[0]) if flag[1] != "ignored"]
    total = 0.0
    for k in range(9):
        allowed = 10 ** (-2 + k / 4)
        found = false = 0
        reached = None
        for _, kind in flags:
            found += kind == "true"
            false += kind == "false"
            if false / len(images) <= allowed * (1 + 1e-12):
                reached = found / positives
        if reached is None:
            reached = found / positives if quirks else 0.0
        total += math.log(max(1 - reached, 1e-10))
    return math.exp(total / 9)
