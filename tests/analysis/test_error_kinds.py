"""Kinds of errors: injected ones are found again, and a slow script agrees about what they cost."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from rsd2.analysis.error_kinds import (
    BOX_PARTS,
    CORRECTIONS,
    FALSE_KINDS,
    ErrorProtocol,
    align_boxes,
    judge_detections,
    replace_part,
    split_lost_precision,
)
from rsd2.evaluation import Detections, GroundTruth
from rsd2.structures import boxes_to_corners

CLASSES = ("plane", "ship")


def make_truth(images, classes, boxes, difficult=None):
    corners = boxes_to_corners(torch.tensor(np.asarray(boxes, dtype=np.float64))).numpy()
    flags = np.zeros(len(corners), dtype=np.int64) if difficult is None else np.array(difficult)
    names = tuple(f"i{k}" for k in range(int(max(images)) + 1))
    return GroundTruth(names, CLASSES, np.array(images), np.array(classes), corners, flags)


def make_detections(images, classes, scores, boxes):
    columns = (np.array(images), np.array(classes), np.array(scores, dtype=np.float64))
    return Detections(*columns, boxes=np.array(boxes, dtype=np.float64))


def perfect_run(num_images=4, seed=0):
    """Objects three times as long as wide, far from each other, all found with other scores."""
    rng = np.random.default_rng(seed)
    cells = [(100 * x + 60, 100 * y + 60) for x in range(4) for y in range(4)]
    images = np.repeat(np.arange(num_images), len(cells))
    boxes = np.array([(x, y, 45, 15, 0) for _ in range(num_images) for x, y in cells], float)
    boxes[:, 4] = rng.uniform(-90, 90, len(boxes))
    classes = rng.integers(0, 2, len(boxes))
    return images, classes, rng.uniform(0.4, 0.8, len(boxes)), boxes


def inject(kind, rows, images, classes, scores, boxes):
    """Make one kind of error in some of the detections."""
    classes, boxes = classes.copy(), boxes.copy()
    if kind == "center":
        turn = np.radians(boxes[rows, 4])
        boxes[rows, :2] += 27 * np.stack([np.cos(turn), -np.sin(turn)], axis=1)
    elif kind == "size":
        boxes[rows, 2:4] *= 0.55
    elif kind == "aspect":
        boxes[rows, 2:4] *= (2, 0.5)
    elif kind == "angle":
        boxes[rows, 4] += 60
    elif kind == "class":
        classes[rows] = 1 - classes[rows]
    elif kind == "class and box":
        boxes[rows, 2:4] *= 0.55
        classes[rows] = 1 - classes[rows]

    columns = (images, classes, scores, boxes)
    if kind == "missed":
        return tuple(np.delete(column, rows, axis=0) for column in columns)
    if kind in ("duplicate", "background"):
        added = boxes[rows] + ((0, 0, 2, 0, 0) if kind == "duplicate" else (-50, 0, 0, 0, 0))
        # Just after the detection that found the object, or before all.
        more = scores[rows] - 1e-6 if kind == "duplicate" else np.linspace(0.9, 1, len(rows))
        extra = (images[rows], classes[rows], more, added)
        return tuple(map(np.concatenate, zip(columns, extra)))
    return columns


def analyse(truth, detections, protocol):
    judgement = judge_detections(truth, detections, protocol)
    return judgement, *split_lost_precision(truth, detections, judgement, protocol)


@pytest.mark.parametrize("kind", [kind for kind in CORRECTIONS if kind != "whole box"])
def test_an_injected_kind_of_error_costs_all_that_is_lost(kind):
    images, classes, scores, boxes = perfect_run()
    truth = make_truth(images, classes, boxes)
    rows = np.random.default_rng(1).choice(len(boxes), 15, replace=False)
    detections = make_detections(*inject(kind, rows, images, classes, scores, boxes))
    judgement, ap, gains = analyse(truth, detections, ErrorProtocol(ap_method="area"))

    assert (ap < 0.99).all()
    shared = {"whole box"} if kind in BOX_PARTS else set()
    for other, gain in gains.items():
        wanted = 1 - ap if other in {kind, *shared} else 0 * ap
        np.testing.assert_allclose(gain, wanted, atol=1e-12, err_msg=other)
    counts = {name: (judgement.kind == k).sum() for k, name in enumerate(FALSE_KINDS)}
    assert {**counts, "missed": judgement.missed.sum()}[kind] == 15
    assert sum(counts.values()) + judgement.missed.sum() == 15


def test_mixed_errors_are_all_counted_as_what_they_are():
    data = perfect_run(num_images=8)
    truth = make_truth(data[0], data[1], data[3])
    kinds = [kind for kind in CORRECTIONS if kind not in ("whole box", "missed")]
    shares = {kind: 3 + number for number, kind in enumerate(kinds)}
    order = iter(np.random.default_rng(2).permutation(len(data[0])).tolist())
    for kind, share in shares.items():
        data = inject(kind, np.array([next(order) for _ in range(share)]), *data)
    # Last, because it moves the rows of those before.
    data = inject("missed", np.array([next(order) for _ in range(9)]), *data)

    judgement = judge_detections(truth, make_detections(*data), ErrorProtocol())
    counts = {name: int((judgement.kind == k).sum()) for k, name in enumerate(FALSE_KINDS)}
    assert counts == shares
    assert judgement.missed.sum() == 9


def slow_part(box, other, part):
    """Replace a part of a box, one number at a time."""
    options = []
    for w, h, angle in ((box[2], box[3], box[4]), (box[3], box[2], box[4] + 90)):
        turn = (angle - other[4]) % 180
        turn = turn - 180 if turn > 90 else turn
        cost = abs(math.log(w / other[2])) + abs(math.log(h / other[3])) + abs(turn) / 90
        options.append((cost, w, h, other[4] + turn))
    _, w, h, angle = min(options)
    x, y = box[:2]
    if part in ("center", "whole box"):
        x, y = other[:2]
    if part in ("angle", "whole box"):
        angle = other[4]
    if part == "size":
        factor = math.sqrt(other[2] * other[3] / (w * h))
        w, h = w * factor, h * factor
    if part == "aspect":
        area, ratio = w * h, other[2] / other[3]
        w, h = math.sqrt(area * ratio), math.sqrt(area / ratio)
    if part == "whole box":
        w, h = other[2:4]
    return (x, y, w, h, angle)


def slow_analysis(judge, objects, detections, method, policy):
    """AP and what each kind costs, from the words of the module, in loops."""
    counting = judge.COUNTING_LABELS[policy]
    shapes = [judge.area_inside(judge.corners_of(box)) for _, _, box, _ in objects]
    # Parts need the objects' boxes, the scorer their corners.
    cornered = [(image, label, judge.corners_of(box), flag) for image, label, box, flag in objects]

    def score(found, wanted=cornered):
        listed = [(image, label, s, judge.corners_of(box)) for image, label, s, box in found]
        table = judge.slow_scores(wanted, listed, len(CLASSES), [0.5], method, policy)
        return table[0]

    kinds, about, taken, covered = {}, {}, set(), set()
    ranked = sorted(range(len(detections)), key=lambda d: (-detections[d][2], detections[d][0], d))
    for d in ranked:
        image, label, _, box = detections[d]
        shape = judge.area_inside(judge.corners_of(box))
        overlaps = [
            (judge.overlap(shape, shapes[i]), -i)
            for i, one in enumerate(objects)
            if one[0] == image
        ]
        own = max([o for o in overlaps if objects[-o[1]][1] == label], default=(0, 0))
        other = max(overlaps, default=(0, 0))
        if own[0] > 0.5:
            if objects[-own[1]][3] in counting and -own[1] in taken:
                kinds[d] = "duplicate"
            taken.add(-own[1])
        elif other[0] > 0.5:
            kinds[d], about[d] = "class", -other[1]
        elif own[0] > 0.1:
            kinds[d], about[d] = "place", -own[1]
        elif other[0] > 0.1:
            kinds[d], about[d] = "class and box", -other[1]
        else:
            kinds[d] = "background"
    covered = set(about.values())

    base, gains = score(detections), {}
    for kind in CORRECTIONS:
        found, wanted = [], cornered
        for d, (image, label, s, box) in enumerate(detections):
            if kinds.get(d) == kind and kind in ("duplicate", "background"):
                continue
            if kinds.get(d) == kind and kind in ("class", "class and box"):
                label = objects[about[d]][1]
            if kinds.get(d) == kind == "class and box":
                box = objects[about[d]][2]
            if kinds.get(d) == "place" and kind in (*BOX_PARTS, "whole box"):
                box = slow_part(box, objects[about[d]][2], kind)
            found.append((image, label, s, box))
        if kind == "missed":
            wanted = [
                one
                for i, one in enumerate(cornered)
                if one[3] not in counting or i in taken or i in covered
            ]
        ap = score(found, wanted)
        gains[kind] = np.where(np.isnan(ap) & ~np.isnan(base), 1, ap) - base
    return base, gains


def random_case(seed):
    """Objects and the detections of a poor detector, with every kind of error."""
    rng = np.random.default_rng(seed)
    objects, detections = [], []
    for image in range(4):
        for _ in range(rng.integers(3, 9)):
            box = (*rng.uniform(20, 150, 2), *rng.uniform(10, 50, 2), rng.uniform(-90, 90))
            label = int(rng.integers(0, 2))
            objects.append((image, label, box, int(rng.choice([0, 0, 0, 1]))))
            for _ in range(rng.integers(0, 4)):
                near = np.array(box) + rng.normal(0, 1, 5) * (4, 4, 0, 0, 15)
                near[2:4] *= np.exp(rng.normal(0, 0.3, 2))
                seen = label if rng.random() < 0.8 else 1 - label
                detections.append((image, seen, float(rng.random()), tuple(near)))
        for _ in range(2):
            box = (*rng.uniform(0, 170, 2), *rng.uniform(5, 30, 2), rng.uniform(-90, 90))
            detections.append((image, int(rng.integers(0, 2)), float(rng.random()), box))
    return objects, detections


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("method", "policy"), [("area", "v1.0"), ("voc07", "v1.5")])
def test_a_slow_script_finds_the_same_parts(load_module, seed, method, policy):
    objects, detections = random_case(seed)
    images, labels, boxes, flags = zip(*objects)
    truth, found = make_truth(images, labels, boxes, flags), make_detections(*zip(*detections))
    protocol = ErrorProtocol(ap_method=method, difficult_policy=policy)
    _, ap, gains = analyse(truth, found, protocol)

    judge = load_module("tests/evaluation/slow_judge.py")
    wanted, wanted_gains = slow_analysis(judge, objects, detections, method, policy)
    np.testing.assert_allclose(ap, wanted, atol=1e-9)
    assert list(gains) == list(wanted_gains)
    for kind, gain in gains.items():
        np.testing.assert_allclose(gain, wanted_gains[kind], atol=1e-9, err_msg=kind)


def test_other_descriptions_of_a_box_have_the_same_parts():
    rng = np.random.default_rng(0)
    boxes, truth = (
        np.concatenate([rng.uniform(10, 50, (99, 4)), rng.uniform(-90, 90, (99, 1))], axis=1)
        for _ in range(2)
    )
    for turned in (boxes + (0, 0, 0, 0, 180), boxes[:, [0, 1, 3, 2, 4]] + (0, 0, 0, 0, 90)):
        np.testing.assert_allclose(align_boxes(turned, truth), align_boxes(boxes, truth), atol=1e-9)
    for part in BOX_PARTS:
        # The parts are independent: all four together give the object.
        boxes = replace_part(boxes, truth, part)
    np.testing.assert_allclose(boxes, truth, atol=1e-9)


def test_nothing_detected_and_nothing_labelled():
    images, classes, _, boxes = perfect_run(1)
    truth = make_truth(images, classes, boxes)
    nothing = make_detections([], [], [], np.zeros((0, 5)))
    nothing = Detections(*(np.zeros(0, dtype=np.int64),) * 2, nothing.scores, boxes=nothing.boxes)
    judgement, ap, gains = analyse(truth, nothing, ErrorProtocol())
    assert (ap == 0).all() and (gains["missed"] == 1).all() and judgement.missed.all()
    assert all((gain == 0).all() for kind, gain in gains.items() if kind != "missed")

    empty = GroundTruth(
        truth.image_ids, CLASSES, *(np.zeros(0, dtype=np.int64),) * 2,
        np.zeros((0, 4, 2)), np.zeros(0, dtype=np.int64),
    )  # fmt: skip
    judgement, ap, _ = analyse(
        empty, make_detections(images, classes, classes, boxes), ErrorProtocol()
    )
    assert (judgement.kind == FALSE_KINDS.index("background")).all() and np.isnan(ap).all()


@pytest.mark.parametrize(
    ("name", "value"),
    [("touch_iou", 0.5), ("ap_method", "coco"), ("difficult_policy", "v9"), ("iou_threshold", 1.5)],
)
def test_impossible_rules_are_refused(name, value):
    with pytest.raises(ValueError, match=str(value)):
        ErrorProtocol(**{name: value})
