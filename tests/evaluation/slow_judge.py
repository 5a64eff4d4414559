"""A slow judge of rotated boxes: the protocol in plain Python loops over shapely polygons.

It was written from the text of the protocol and shares nothing with ``rsd2``: not the reader of
labels, not the reader of results. As a script it scores files:

    python tests/evaluation/slow_judge.py --labels hrsc/test/labelTxt --results Task1.zip \\
        --classes ship
"""

import argparse
import math
import zipfile
from pathlib import Path

import numpy as np
import shapely

COUNTING_LABELS = {"v1.0": {0}, "v1.5": {0, 1}, "count-all": {0, 1, 2}}


def corners_of(box):
    cx, cy, w, h, angle = (float(value) for value in box)
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    local = [(-w / 2, -h / 2), (w / 2, -h / 2), (w / 2, h / 2), (-w / 2, h / 2)]
    return [(cx + cos * x + sin * y, cy - sin * x + cos * y) for x, y in local]


def area_inside(corners):
    polygon = shapely.Polygon(corners)
    return polygon if polygon.is_valid else shapely.make_valid(polygon)


def overlap(first, second):
    union = first.area + second.area
    common = first.intersection(second).area
    return common / (union - common) if first.area > 0 and second.area > 0 else 0.0


def slow_nms(boxes, scores, classes, threshold):
    """Indices kept by greedy suppression within each class, best score first."""
    kept = []
    shapes = [area_inside(corners_of(box)) for box in boxes]
    for i in sorted(range(len(boxes)), key=lambda i: (-scores[i], i)):
        rivals = [j for j in kept if classes[j] == classes[i]]
        if all(overlap(shapes[i], shapes[j]) <= threshold for j in rivals):
            kept.append(i)
    return kept


def slow_curve(verdicts, num_positives):
    """(recall, precision) after every detection; verdicts are 'tp', 'fp' or 'ignored'."""
    true = false = 0
    points = []
    for verdict in verdicts:
        true += verdict == "tp"
        false += verdict == "fp"
        points.append((true / num_positives, true / (true + false) if true + false else 0.0))
    return points


def slow_average_precision(points, method):
    if method == "voc07":
        total = 0.0
        for k in range(11):
            total += max([p for r, p in points if r >= k * 0.1], default=0.0)
        return total / 11
    area, reached = 0.0, 0.0
    for index, (recall, _) in enumerate(points):
        if recall > reached:
            area += (recall - reached) * max(p for _, p in points[index:])
            reached = recall
    return area


def slow_scores(objects, detections, num_classes, thresholds, method, policy):
    """AP by threshold and class; objects (image, class, corners, difficulty), detections
    (image, class, score, corners) with images as numbers, equal scores by image then by place."""
    table = np.full((len(thresholds), num_classes), np.nan)
    shapes = [area_inside(corners) for _, _, corners, _ in objects]
    for label in range(num_classes):
        own = [i for i, item in enumerate(objects) if item[1] == label]
        num_positives = sum(objects[i][3] in COUNTING_LABELS[policy] for i in own)
        ranked = sorted(
            (item for item in detections if item[1] == label), key=lambda d: (-d[2], d[0])
        )
        best = []
        for image, _, _, corners in ranked:
            shape = area_inside(corners)
            chosen, most = None, -1.0
            for i in own:
                if objects[i][0] == image:
                    iou = overlap(shape, shapes[i])
                    if iou > most:
                        chosen, most = i, iou
            best.append((chosen, most))
        if num_positives == 0:
            continue
        for row, threshold in enumerate(thresholds):
            taken, verdicts = set(), []
            for chosen, most in best:
                if not most > threshold:
                    verdicts.append("fp")
                elif objects[chosen][3] not in COUNTING_LABELS[policy]:
                    verdicts.append("ignored")
                else:
                    verdicts.append("fp" if chosen in taken else "tp")
                    taken.add(chosen)
            points = slow_curve(verdicts, num_positives)
            table[row, label] = slow_average_precision(points, method)
    return table


def read_objects(folder, classes):
    """Names of the images, and (image, class, corners, difficulty) of DOTA's label files."""
    names, objects = [], []
    for image, path in enumerate(sorted(Path(folder).glob("*.txt"))):
        names.append(path.stem)
        for line in path.read_text().splitlines():
            words = line.split()
            # The first lines of DOTA's own files name the source and the ground sampling distance.
            if len(words) >= 9:
                corners = [(float(words[k]), float(words[k + 1])) for k in (0, 2, 4, 6)]
                difficulty = int(words[9]) if len(words) > 9 else 0
                objects.append((image, classes.index(words[8]), corners, difficulty))
    return names, objects


def read_detections(path, names, classes):
    """(image, class, score, corners) of the lines of a Task 1 zip."""
    detections = []
    with zipfile.ZipFile(path) as archive:
        for label, name in enumerate(classes):
            for line in archive.read(f"Task1_{name}.txt").decode().splitlines():
                image, score, *numbers = line.split()
                corners = [tuple(map(float, numbers[k : k + 2])) for k in (0, 2, 4, 6)]
                detections.append((names.index(image), label, float(score), corners))
    return detections


def score_files(labels, results, classes, thresholds, method, policy="v1.0"):
    """AP by threshold and class of a Task 1 zip against a folder of label files."""
    names, objects = read_objects(labels, classes)
    detections = read_detections(results, names, classes)
    return slow_scores(objects, detections, len(classes), thresholds, method, policy)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("--labels", "--results"):
        parser.add_argument(name, required=True)
    parser.add_argument("--classes", nargs="+", required=True)
    args = parser.parse_args()
    thresholds = [0.5 + 0.05 * k for k in range(10)]
    for method in ("voc07", "area"):
        table = score_files(args.labels, args.results, args.classes, thresholds, method)
        ap = 100 * np.nanmean(table, axis=1)
        print(f"{method}: AP50 {ap[0]:.6f} AP75 {ap[5]:.6f} AP {ap.mean():.6f}")


if __name__ == "__main__":
    main()
