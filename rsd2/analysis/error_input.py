"""Labels and detections for the report of errors: read, checked, and described object by object.

Shapes: I images, G ground-truth objects, D detections, W windows.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from scipy.spatial import cKDTree

from rsd2.data.dataset_dicts import check_record
from rsd2.evaluation.dota import SUBMISSION_FILE
from rsd2.evaluation.evaluator import RESULTS_FILE
from rsd2.evaluation.files.coco_results import read_coco_results
from rsd2.evaluation.files.task1 import read_task1
from rsd2.evaluation.matching.boxes import BoxDetections, BoxTruth
from rsd2.evaluation.matching.polygons import Regions
from rsd2.evaluation.records import BoxMerging, WindowKey, assemble_outputs, window_key
from rsd2.evaluation.report import ground_truth_digest
from rsd2.evaluation.scoring.dota import Detections, GroundTruth

_MEMBER = re.compile(r"Task1_(.+)\.txt")
_GROUND_SIZE = re.compile(r"^gsd:\s*([0-9.eE+-]+)\s*$", re.MULTILINE)
_NEIGHBOURHOOD = 4.0
_REGION_SHARE = 0.5


class AnalysisError(ValueError):
    """Labels or detections that cannot be analysed; the message says why, in one sentence."""


@dataclass(frozen=True)
class LabelledSet:
    """Labels of a dataset, with what is known of each object.

    Attributes:
        name: name of the dataset that the model was run on.
        records: I dataset dicts of the scored images.
        truth: their objects; regions to ignore and crowds are difficult ones.
        region: (G,) bool, upright regions in which detections do not count.
        heading: (G,) direction to the head in degrees counter-clockwise on screen, or ``nan``.
        metres: (G,) metres of a pixel, or ``nan``.
        border: (G,) pixels from the centre to the nearest border of the window that shows the
            object best, ``inf`` for none; borders of windows on the border of the image do not
            count. Without windows the border of the image.
        has_windows: whether the model sees windows of the images.
        neighbours: (G,) number of other objects whose centres are nearer than four times the
            square root of the object's area.
        sizes: (G,) square roots of the areas, pixels.
        digests: fingerprints of the labels in the forms in which the evaluators take them.
    """

    name: str
    records: Sequence[dict]
    truth: GroundTruth
    region: np.ndarray
    heading: np.ndarray
    metres: np.ndarray
    border: np.ndarray
    has_windows: bool
    neighbours: np.ndarray
    sizes: np.ndarray
    digests: frozenset[str]


@dataclass(frozen=True)
class Predictions:
    """Detections of a run.

    Attributes:
        name: name of the run, for the report.
        detections: detections on the scored images.
        record: content of the file of metrics beside the detections; None if there is none.
        are_upright: whether the file holds upright boxes.
    """

    name: str
    detections: Detections
    record: Mapping[str, Any] | None
    are_upright: bool


def read_labels(name: str) -> LabelledSet:
    """Read the labels of a registered dataset, those of whole images if it has windows.

    Args:
        name: name of the dataset; its ``source_dataset`` has the whole images.

    Returns:
        The labels.

    Raises:
        AnalysisError: the dataset is unknown, or its labels are hidden or cannot be scored.
        OSError: a file of the dataset cannot be read.
    """
    if name not in DatasetCatalog.list():
        raise AnalysisError(f"dataset {name!r} is not registered; give the name of a built-in one")
    metadata = MetadataCatalog.get(name)
    source = metadata.get("source_dataset") or name
    try:
        records = DatasetCatalog.get(source)
        inputs = records if source == name else DatasetCatalog.get(name)
    except ValueError as error:  # a label that cannot be read; the message names file and line
        raise AnalysisError(str(error)) from error
    classes = MetadataCatalog.get(source).get("thing_classes") or metadata.thing_classes

    if not any(record.get("annotations") for record in records):
        raise AnalysisError(f"dataset {source!r} has no labelled object; take one with labels")
    try:
        truth = GroundTruth.from_dicts([_without_crowds(record) for record in records], classes)
        digests = {ground_truth_digest(truth)}
        if all(len(obj.get("bbox", ())) == 4 for obj in _objects(records)):
            digests.add(ground_truth_digest(BoxTruth.from_dicts(records, classes)))
    except ValueError as error:
        raise AnalysisError(str(error)) from error

    region = [bool(obj.get("iscrowd", 0)) or obj.get("ignore", False) for obj in _objects(records)]
    labels_dir = MetadataCatalog.get(source).get("labels_dir")
    sizes = np.sqrt(Regions.from_polygons(truth.polygons).areas)
    metres = np.array([_metres_of_pixel(record, labels_dir) for record in records])
    return LabelledSet(
        name=name,
        records=records,
        truth=truth,
        region=np.array(region, dtype=bool),
        heading=_headings(records, truth),
        metres=metres[truth.image_index],
        border=_border_distances(records, inputs, truth),
        has_windows=any(item.get("tile") for item in inputs),
        neighbours=_count_neighbours(truth, sizes),
        sizes=sizes,
        digests=frozenset(digests),
    )


def read_predictions(path: str | Path, labels: LabelledSet) -> Predictions:
    """Read the detections of a run.

    Args:
        path: folder that an evaluator wrote; or ``Task1.zip`` of rotated boxes, or a JSON file in
            COCO's result format.
        labels: labels of the dataset that the run was evaluated on.

    Returns:
        The detections, without those in regions to ignore.

    Raises:
        AnalysisError: there are no detections, or they are of other images, classes or labels.
    """
    path = Path(path)
    file = find_predictions(path)
    record = read_record(path)
    wanted = None if record is None else record.get("dataset", {}).get("ground_truth_sha256")
    if wanted is not None and wanted not in labels.digests:
        raise AnalysisError(
            f"{path} was scored on other labels than those of {labels.name!r}; name the dataset of "
            "that run, or evaluate again"
        )

    is_upright = file.suffix == ".json"
    try:
        found = _read_coco(file, labels) if is_upright else _read_task1(file, labels.truth)
    except (ValueError, FileNotFoundError, zipfile.BadZipFile) as error:
        raise AnalysisError(
            f"{file}: {error}" if str(path) not in str(error) else str(error)
        ) from error
    # Names of an evaluator's folders say nothing; the name of the run stands above them.
    names = [part for part in path.resolve().parts[-4:] if part not in (file.name, "inference")]
    return Predictions("/".join(names[-2:]), found, record, is_upright)


def find_predictions(path: Path) -> Path:
    """Return the file or folder with the detections that a path means.

    Args:
        path: see `read_predictions`.

    Raises:
        AnalysisError: there is none.
    """
    if not path.exists():
        raise AnalysisError(
            f"there are no predictions at {path}; evaluate the model first, its evaluator writes "
            "them to output_dir"
        )
    if path.is_file():
        return path
    for name in (SUBMISSION_FILE, RESULTS_FILE):
        if (path / name).is_file():
            return path / name
    if any(_MEMBER.fullmatch(file.name) for file in path.iterdir()):
        return path
    raise AnalysisError(
        f"{path} holds neither {SUBMISSION_FILE} nor {RESULTS_FILE}; give the folder that the "
        "evaluator of boxes wrote"
    )


def read_record(path: Path) -> dict[str, Any] | None:
    """Return the content of the file of metrics that belongs to predictions, or None.

    Args:
        path: see `read_predictions`.

    Raises:
        AnalysisError: the file is not JSON.
    """
    folder = path if path.is_dir() else path.parent
    for file in sorted(folder.glob("metrics_*.json")):
        try:
            return json.loads(file.read_text("utf-8"))
        except ValueError as error:
            raise AnalysisError(f"{file} is not JSON ({error}); evaluate again") from error
    return None


def check_same_protocol(first: Predictions, second: Predictions) -> None:
    """Refuse to compare runs that were not evaluated alike.

    Args:
        first: detections of a run.
        second: detections of another run, on the same labels.

    Raises:
        AnalysisError: their protocols differ, or only one is known.
    """
    rules = [
        {} if one.record is None else one.record.get("protocol", {}) for one in (first, second)
    ]
    one, other = rules
    differing = [key for key in {**one, **other} if one.get(key) != other.get(key)]
    if first.are_upright != second.are_upright:
        differing.insert(0, "kind of boxes")
    if differing:
        key = differing[0]
        raise AnalysisError(
            f"{first.name} and {second.name} were evaluated by different protocols, so their "
            f"difference means nothing: {key} is {one.get(key, 'unknown')!r} and "
            f"{other.get(key, 'unknown')!r}; evaluate both alike"
        )


def _read_task1(path: Path, truth: GroundTruth) -> Detections:
    if path.is_dir():
        names = [file.name for file in path.iterdir()]
    else:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    found = {match[1] for match in map(_MEMBER.fullmatch, names) if match}
    # A class of the file that the dataset lacks would be left out, and its absence never seen.
    if others := sorted(found - set(truth.class_names)):
        raise ValueError(
            f"{path} has class {others[0]!r}, which is not one of the dataset's: "
            f"{', '.join(truth.class_names)}; name the dataset that it was made for"
        )
    return read_task1(path, truth.image_ids, truth.class_names)


def _read_coco(path: Path, labels: LabelledSet) -> Detections:
    truth = labels.truth
    inputs = {
        record.get("json_id", number): (image_id, ())
        for number, (image_id, record) in enumerate(zip(truth.image_ids, labels.records), start=1)
    }
    classes: dict[int | str, int] = {k + 1: k for k in range(len(truth.class_names))}
    records, _ = read_coco_results(path, inputs, classes)
    index = {image_id: number for number, image_id in enumerate(truth.image_ids)}
    found = assemble_outputs(records, index, BoxMerging(None)).detections

    kept = ~_in_regions(found, labels)
    x0, y0, x1, y1 = found.boxes[kept].T
    corners = np.stack([x0, y0, x1, y0, x1, y1, x0, y1], axis=1).reshape(-1, 4, 2)
    return Detections(
        found.image_index[kept], found.class_index[kept], found.scores[kept], polygons=corners
    )


def _in_regions(found: BoxDetections, labels: LabelledSet) -> np.ndarray:
    """Tell (D,) which detections lie in a region to ignore by half of their area or more."""
    inside = np.zeros(len(found.scores), dtype=bool)
    for row in np.flatnonzero(labels.region):
        low, high = (edge(labels.truth.polygons[row], axis=0) for edge in (np.min, np.max))
        same = found.image_index == labels.truth.image_index[row]
        same &= found.class_index == labels.truth.class_index[row]
        boxes = found.boxes[same]
        sides = np.minimum(boxes[:, 2:], high) - np.maximum(boxes[:, :2], low)
        areas = np.maximum((boxes[:, 2:] - boxes[:, :2]).prod(axis=1), 1e-9)
        inside[same] |= np.maximum(sides, 0).prod(axis=1) / areas >= _REGION_SHARE
    return inside


def _objects(records: Sequence[dict]) -> list[dict]:
    return [obj for record in records for obj in record.get("annotations", ())]


def _without_crowds(record: dict) -> dict:
    """Turn what other protocols ignore into difficult objects, which DOTA's protocol ignores."""
    check_record(record, "image_id")
    objects = [
        {**obj, "iscrowd": 0, "difficult": 1}
        if obj.get("iscrowd") or obj.get("ignore") or obj.get("uncertain")
        else obj
        for obj in record.get("annotations", ())
    ]
    return {**record, "annotations": objects}


def _metres_of_pixel(record: Mapping[str, Any], labels_dir: str | None) -> float:
    """Return ``gsd`` of a dataset dict, or of the header of its DOTA label file, else ``nan``."""
    if "gsd" in record or labels_dir is None:
        return float(record.get("gsd") or np.nan)
    file = Path(labels_dir) / f"{record['image_id']}.txt"
    if not file.is_file():
        return np.nan
    with file.open("rb") as stream:
        match = _GROUND_SIZE.search(stream.read(400).decode("utf-8", errors="replace"))
    return float(match[1]) if match else np.nan


def _headings(records: Sequence[dict], truth: GroundTruth) -> np.ndarray:
    heads = [obj.get("head") or (np.nan, np.nan) for obj in _objects(records)]
    centers = truth.polygons.mean(axis=1)
    x, y = (np.array(heads, dtype=np.float64).reshape(-1, 2) - centers).T
    return np.degrees(np.arctan2(-y, x))


def _border_distances(
    records: Sequence[dict], inputs: Sequence[dict], truth: GroundTruth
) -> np.ndarray:
    """Measure how deep (G,) the objects lie in the windows that show them best."""
    windows: dict[str, list[WindowKey]] = {}
    for item in inputs:
        if tile := item.get("tile"):
            windows.setdefault(str(tile["source_id"]), []).append(window_key(tile))

    centers = truth.polygons.mean(axis=1)
    result = np.full(len(centers), np.inf)
    for number, (image_id, record) in enumerate(zip(truth.image_ids, records)):
        rows = np.flatnonzero(truth.image_index == number)
        size = np.array([record["width"], record["height"]], dtype=np.float64)
        places = np.array(windows.get(image_id, []), dtype=np.float64).reshape(-1, 4)
        if not len(rows):
            continue
        if not len(places):
            result[rows] = np.minimum(centers[rows], size - centers[rows]).min(axis=1)
            continue

        low, high = places[:, :2], places[:, :2] + places[:, 2:]
        points = centers[rows, None]
        # The border of the image cuts no object anew in the window.
        before = np.where(low > 0, points - low, np.inf)
        behind = np.where(high < size, high - points, np.inf)
        depth = np.minimum(before, behind).min(axis=2)
        shows = ((points >= low) & (points <= high)).all(axis=2)
        result[rows] = np.where(shows, depth, -np.inf).max(axis=1)
    # The centre of a cut object may lie outside of all windows.
    return np.maximum(result, 0)


def _count_neighbours(truth: GroundTruth, sizes: np.ndarray) -> np.ndarray:
    centers = truth.polygons.mean(axis=1)
    result = np.zeros(len(centers), dtype=np.int64)
    for number in np.unique(truth.image_index):
        rows = np.flatnonzero(truth.image_index == number)
        tree, radii = cKDTree(centers[rows]), _NEIGHBOURHOOD * sizes[rows]
        # The object itself is among those that are near.
        result[rows] = tree.query_ball_point(centers[rows], radii, return_length=True) - 1
    return result
