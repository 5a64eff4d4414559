"""Checks of the labels of a data set: shapes, places, class names, and what models can hold.

Shapes: N objects of one image; polygons (N, 4, 2) xy in pixels.
"""

from __future__ import annotations

import difflib
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import shapely
from tqdm import tqdm

from rsd2.data.class_orders import canonical_class_name
from rsd2.data.formats.rectangles import smallest_rectangle
from rsd2.data.windows.tiling import assign_objects, compute_windows, visible_fractions

from .findings import Finding, Findings
from .pictures import DataSet, Picture

SHORTEST_SIDE = 2.0
"""Pixels; a shorter side is a finding."""
GREATEST_ASPECT = 50.0
LEAST_VISIBLE = 0.25
"""An object of which the image shows less is outside; generated sets show at least 0.4."""
LEAST_FILL = 0.5
"""Share of the smallest rectangle that a quadrilateral fills; a triangle fills half of it."""
EQUAL_OVERLAP = 0.9
"""Two objects of one class with a greater IoU are one that was drawn twice."""

_RADIAN_LIMIT = math.pi / 2 + 0.01  # degrees, if radians were read as degrees
_ENOUGH = 50  # objects that show a habit of the whole set
_NUMBERS = re.compile(r"\((-?[\d.e+-]+(?: -?[\d.e+-]+){7})\)")


def check_labels(data: DataSet, findings: Findings, *, progress: bool = True) -> None:
    """Check the labels of a data set on their own.

    Args:
        data: the data set.
        findings: gets what is wrong, with file and line.
        progress: show a bar.
    """
    _add_reported(data, findings)
    _check_classes(data, findings)

    directions: Counter[bool] = Counter()
    angles: list[np.ndarray] = []
    bar = tqdm(data.pictures, desc=f"labels of {data.name}", delay=2, disable=not progress)
    for picture in bar:
        polygons = polygons_of(picture)
        if len(polygons):
            directions.update((signed_areas(polygons) < 0).tolist())
            angles.append(_check_shapes(data, picture, polygons, findings))
            _check_places(data, picture, polygons, findings)
            _check_equal_ones(data, picture, polygons, findings)

    _check_directions(data, directions, findings)
    _check_angles(data, np.concatenate(angles) if angles else np.zeros(0), findings)


def check_fit(
    data: DataSet,
    findings: Findings,
    *,
    window: int,
    overlap: int,
    num_queries: int | None = None,
) -> None:
    """Check whether windows show all objects whole enough, and models have queries for them.

    Images that are not larger than a window are not cut, and counted as they are.

    Args:
        data: the data set.
        findings: gets objects that no window shows, and windows with too many objects.
        window: side of the windows, pixels.
        overlap: overlap of the windows, pixels.
        num_queries: most objects that the model can find in a window; None if it has no limit.
    """
    for picture in data.pictures:
        polygons, image = polygons_of(picture), picture.image
        most = len(polygons)
        if len(polygons) and max(image.width, image.height) > window:
            windows = compute_windows(image.width, image.height, window, overlap)
            owners, shown, _ = assign_objects(polygons, windows)
            most = int(np.bincount(owners).max(initial=0))
            # An object that leaves the image is no fault of the windows.
            inside = visible_fractions(polygons, np.array([0, 0, image.width, image.height])) == 1
            for index in np.setdiff1d(np.flatnonzero(inside), shown).tolist():
                sides = " x ".join(
                    f"{side:.0f}" for side in sides_of(polygons[index : index + 1])[0]
                )
                message = f"{sides} pixels, windows of {window} with {overlap} of overlap"
                _add(data, picture, index, "object_without_window", message, findings)

        if num_queries is not None and most > num_queries:
            where = "the image" if max(image.width, image.height) <= window else "a window"
            message = f"{most} objects in {where}, the model has {num_queries} queries"
            file = image.label_file or picture.path
            findings.add(Finding("many_objects", data.name, file, None, message, picture))


def polygons_of(picture: Picture) -> np.ndarray:
    """Return the quadrilaterals of an image, (N, 4, 2) float64."""
    return np.array([one.polygon for one in picture.image.objects], float).reshape(-1, 4, 2)


def sides_of(polygons: np.ndarray) -> np.ndarray:
    """Return the sides of objects: the means of opposite sides of each quadrilateral.

    Args:
        polygons: (N, 4, 2) xy in pixels.

    Returns:
        (N, 2) float64 pixels, the longer side first.
    """
    lengths = np.hypot(*np.moveaxis(np.roll(polygons, -1, axis=1) - polygons, -1, 0))
    return -np.sort(-(lengths[:, :2] + lengths[:, 2:]) / 2, axis=1)


def signed_areas(polygons: np.ndarray) -> np.ndarray:
    """Return the areas of quadrilaterals, positive if they run clockwise on screen."""
    x, y = polygons[..., 0], polygons[..., 1]
    return (x * np.roll(y, -1, axis=1) - y * np.roll(x, -1, axis=1)).sum(axis=1) / 2


def polygon_in(message: str) -> np.ndarray | None:
    """Return the quadrilateral that a message of a reader names.

    Readers leave out what has no area or is outside, so that only the message knows its place.

    Args:
        message: message with eight numbers in brackets, or without.

    Returns:
        (4, 2) float64 xy in pixels, or None.
    """
    match = _NUMBERS.search(message)
    return None if match is None else np.array(match[1].split(), float).reshape(4, 2)


def _add(
    data: DataSet, picture: Picture, index: int, kind: str, message: str, findings: Findings
) -> None:
    """Add a finding about one object."""
    one, image = picture.image.objects[index], picture.image
    # Formats whose objects have no line get the number of the object.
    place = one.name if one.line else f"object {index + 1} of {image.file_name}, {one.name}"
    file = image.label_file or picture.path
    polygon = one.polygon
    findings.add(Finding(kind, data.name, file, one.line, f"{place}: {message}", picture, polygon))


def _add_reported(data: DataSet, findings: Findings) -> None:
    """Add what the reader found, with the image that shows it."""
    by_label = {p.image.label_file: p for p in data.pictures if p.image.label_file}
    by_path = {p.path: p for p in data.pictures}
    for one in data.report.problems:
        # Judged here for all data sets alike, whatever the policy of their reader.
        if one.kind in ("unknown_class", "outside_image", "crossing_border"):
            continue
        picture = by_label.get(one.file) or by_path.get(one.file)
        polygon = polygon_in(one.message)
        findings.add(
            Finding(one.kind, data.name, one.file, one.line, one.message, picture, polygon)
        )

    # The list of problems is bounded, the counts are not.
    stored = Counter(one.kind for one in data.report.problems)
    for kind in stored:
        findings.counts[kind] += data.report.count(kind) - stored[kind]


def _check_classes(data: DataSet, findings: Findings) -> None:
    """Find names that are not in the class list, or look like slips of frequent ones."""
    counts = Counter(one.name for p in data.pictures for one in p.image.objects)
    meant: dict[str, tuple[str, str]] = {}
    for name in counts:
        if data.classes and name not in data.classes:
            near = nearest_name(name, data.classes)
            kind = "class_typo" if near else "unknown_class"
            hint = f", the nearest name is {near!r}" if near else ""
            meant[name] = kind, f"is not in the class list{hint}"
        elif not data.classes:
            # Without a list, a rare name like a frequent one is the slip.
            frequent = [other for other in counts if counts[other] >= 5 * counts[name]]
            near = nearest_name(name, frequent, cutoff=0.85)
            if near:
                times = f"{counts[name]} times, {near!r} {counts[near]} times"
                meant[name] = "class_typo", f"stands there {times}"

    for picture in data.pictures if meant and not data.is_subset else ():
        for index, one in enumerate(picture.image.objects):
            if one.name in meant:
                kind, message = meant[one.name]
                _add(data, picture, index, kind, f"class {one.name!r} {message}", findings)

    # A data set of one class list per split may lack some: it is still worth a line.
    for name in data.classes if counts else ():
        if not counts[name]:
            message = f"class {name!r} of the list has no object"
            findings.add(Finding("unused_class", data.name, data.name, None, message))


def nearest_name(name: str, known: Sequence[str], cutoff: float = 0.75) -> str | None:
    """Return the known name that a misspelt one most likely means.

    Args:
        name: name as it is written.
        known: names that are right.
        cutoff: least similarity, in [0, 1]; "small-vehicle" and "large-vehicle" have 0.77.

    Returns:
        the same name in other case or with other hyphens, else the most similar one; None if
        none is similar.
    """
    same = canonical_class_name(name, known)
    if same != name:
        return same
    near = difflib.get_close_matches(name.lower(), [k.lower() for k in known], 1, cutoff)
    # Numbered names like 'crane-1' differ by what they are meant to differ in.
    if not near or re.sub(r"\d", "", near[0]) == re.sub(r"\d", "", name.lower()):
        return None
    return next(k for k in known if k.lower() == near[0])


def _check_shapes(
    data: DataSet, picture: Picture, polygons: np.ndarray, findings: Findings
) -> np.ndarray:
    """Check sides and shapes; return the angles of the objects that are no squares, degrees."""
    sides = sides_of(polygons)
    long, short = sides.T
    for index in np.flatnonzero(short < SHORTEST_SIDE).tolist():
        message = f"sides of {long[index]:.4g} and {short[index]:.2g} pixels"
        _add(data, picture, index, "short_side", message, findings)
    for index in np.flatnonzero((short > 0) & (long > GREATEST_ASPECT * short)).tolist():
        message = f"{long[index]:.4g} pixels long and {short[index]:.3g} wide"
        _add(data, picture, index, "long_thin", message, findings)

    # Cheap test first: the area between the mean sides is that of the smallest rectangle, or near.
    areas = np.abs(signed_areas(polygons))
    for index in np.flatnonzero(areas < 0.75 * long * short).tolist():
        rectangle = smallest_rectangle(polygons[index])
        fill = areas[index] / max(rectangle[2] * rectangle[3], 1e-9)
        # Self-crossing ones fill little, too, and are reported as what they are.
        if fill < LEAST_FILL and shapely.is_simple(shapely.linearrings(polygons[index])):
            message = f"fills {fill:.0%} of its smallest rectangle"
            _add(data, picture, index, "odd_shape", message, findings)

    edges = polygons[:, 1] - polygons[:, 0]
    angles = np.degrees(np.arctan2(edges[:, 1], edges[:, 0]))
    # Within a quarter turn of an axis, whichever side comes first.
    angles = (angles + 45) % 90 - 45
    return angles[long > 1.1 * short]


def _check_places(
    data: DataSet, picture: Picture, polygons: np.ndarray, findings: Findings
) -> None:
    """Find objects outside the image, or cut by its border."""
    image = picture.image
    window = np.array([0, 0, image.width, image.height], dtype=float)
    size = f"the image of {image.width} x {image.height} pixels"
    beyond = (polygons < window[:2] - 1) | (polygons > window[2:] + 1)
    indices = np.flatnonzero(beyond.any(axis=(1, 2)))
    shown = visible_fractions(polygons[indices], window) if len(indices) else ()

    for index, fraction in zip(indices.tolist(), shown):
        if fraction < LEAST_VISIBLE:
            message = f"{fraction:.1%} of it lies inside {size}"
            _add(data, picture, index, "outside_image", message, findings)
        elif not data.cuts_objects:
            message = f"{fraction:.1%} of it lies inside {size}"
            _add(data, picture, index, "crossing_border", message, findings)


def _check_equal_ones(
    data: DataSet, picture: Picture, polygons: np.ndarray, findings: Findings
) -> None:
    """Find objects of one class that lie on top of each other."""
    names = np.array([one.name for one in picture.image.objects])
    middles, areas = polygons.mean(axis=1), np.abs(signed_areas(polygons))
    reach = 0.1 * sides_of(polygons)[:, 0]
    tree = shapely.STRtree(shapely.points(middles))
    first, second = tree.query(shapely.points(middles), "dwithin", reach)

    # Equal ones are left to the reader, which names the line of the first.
    is_pair = (first < second) & (names[first] == names[second])
    is_pair &= (polygons[first] != polygons[second]).any(axis=(1, 2))
    ratio = np.minimum(areas[first], areas[second]) / np.maximum(areas[first], areas[second])
    for i, j in zip(*(side[is_pair & (ratio > EQUAL_OVERLAP)] for side in (first, second))):
        one, other = shapely.make_valid(shapely.polygons(polygons[[i, j]]))
        union = shapely.area(shapely.union(one, other))
        overlap = shapely.area(shapely.intersection(one, other)) / max(union, 1e-9)
        if overlap > EQUAL_OVERLAP:
            before = picture.image.objects[i].line
            message = f"IoU {overlap:.2f} with " + (
                f"line {before}" if before else f"object {i + 1}"
            )
            _add(data, picture, int(j), "nearly_equal_object", message, findings)


def _check_directions(data: DataSet, directions: Counter[bool], findings: Findings) -> None:
    """Find objects whose vertices run against those of most others."""
    if not directions[True] or not directions[False]:
        return
    is_habit_reversed = directions[True] > directions[False]
    sense = "clockwise" if is_habit_reversed else "counter-clockwise"
    others = max(directions.values())
    for picture in data.pictures:
        polygons = polygons_of(picture)
        areas = signed_areas(polygons) if len(polygons) else np.zeros(0)
        # Crossing quadrilaterals have no sense.
        for index in np.flatnonzero((areas < 0) != is_habit_reversed).tolist():
            if shapely.is_simple(shapely.linearrings(polygons[index])):
                message = f"runs {sense} on screen, unlike {others} others"
                _add(data, picture, index, "reversed_vertices", message, findings)


def _check_angles(data: DataSet, angles: np.ndarray, findings: Findings) -> None:
    """Find sets whose angles were lost, or have another unit."""
    if len(angles) < _ENOUGH:
        return
    is_upright = np.abs(angles) < 0.01
    message = ""
    if is_upright.mean() > 0.98:
        kind = "upright_boxes"
        message = (
            f"{is_upright.mean():.1%} of {len(angles)} objects that are no squares are upright"
        )
    # Half upright ones are a habit of annotators, and no mark of another unit.
    elif (np.abs(angles) <= _RADIAN_LIMIT).mean() > 0.95 and is_upright.mean() < 0.5:
        kind = "angles_in_radians"
        message = f"all but a few of {len(angles)} angles lie within {_RADIAN_LIMIT:.2f} degrees"
    if message:
        findings.add(Finding(kind, data.name, data.name, None, message))


def median(values: Sequence[float] | np.ndarray) -> float | None:
    """Return the median, or None without values."""
    return float(np.median(values)) if len(values) else None


def describe_classes(data: DataSet) -> list[Mapping[str, object]]:
    """Count the objects of each class.

    Returns:
        a dict for each class of the list, then for each other name: ``name``, ``objects``,
        ``images``, ``long_side`` and ``short_side`` (medians, pixels, or None).
    """
    sides: dict[str, list[np.ndarray]] = {name: [] for name in data.classes}
    images: Counter[str] = Counter()
    for picture in data.pictures:
        names = [one.name for one in picture.image.objects]
        images.update(set(names))
        for name, pair in zip(names, sides_of(polygons_of(picture)) if names else ()):
            sides.setdefault(name, []).append(pair)

    return [
        {
            "name": name,
            "objects": len(pairs),
            "images": images[name],
            "long_side": median([pair[0] for pair in pairs]),
            "short_side": median([pair[1] for pair in pairs]),
        }
        for name, pairs in sides.items()
    ]
