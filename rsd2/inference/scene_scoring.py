"""Scores of maps: detections in scenes against labels with coordinates or COCO's masks.

Shapes: N detections of a map.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import shapely

from rsd2.data.datasets.scenes import read_labels
from rsd2.evaluation.scoring.bootstrap import resample_ap
from rsd2.evaluation.scoring.dota import (
    Detections,
    DotaScores,
    GroundTruth,
    score_detections,
)
from rsd2.geo.raster import Raster
from rsd2.geo.vector_files import read_vector_file

_BOX_COLUMNS = ("x_px", "y_px", "w_px", "h_px", "angle_px")
_INTERVAL = (2.5, 97.5)


@dataclass(frozen=True)
class ScoredScene:
    """Labels and detections of a scene, in pixels of the scene.

    Attributes:
        name: name of the scene.
        truth: labelled objects of the scene.
        detections: detections of the scene's map.
        note: sentence about labels that were left out; empty if there are none.
    """

    name: str
    truth: GroundTruth
    detections: Detections
    note: str = ""


def read_scored_scene(
    name: str,
    map_path: str | Path,
    labels: str | Path,
    raster: Raster,
    class_names: Sequence[str],
    class_column: str | None = "class",
    area: shapely.Geometry | None = None,
    crowds: str = "detect",
) -> ScoredScene:
    """Read a map and the labels of its scene.

    Args:
        name: name of the scene.
        map_path: map file that `write_map` wrote.
        labels: vector file or COCO file with the labels.
        raster: the scene.
        class_names: class names of the model, in its order.
        class_column: column of the labels with the classes, see `read_labels`.
        area: area that was searched, in pixels of the scene; objects whose centre lies outside
            do not count. None for the whole scene.
        crowds: meaning of ``iscrowd`` in a COCO file, see `read_labels`.

    Returns:
        Labels and detections; labels of other classes are left out and noted.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file cannot be read, or `write_map` did not write the map.
    """
    found, difficult = read_labels(
        labels, raster, class_column, class_name=class_names[0], crowds=crowds
    )

    indices = {label: index for index, label in enumerate(class_names)}
    keep = np.array([label in indices for label in found.names], dtype=bool)
    others = sorted({label for label in found.names if label not in indices})
    notes = [found.describe()] if "left out" in found.describe() else []
    # Labels of classes that the model does not know cannot be found, and would lower the recall.
    if others:
        notes.append(f"{int((~keep).sum())} labels of other classes: {', '.join(others)}")

    if area is not None:
        inside = shapely.contains_xy(area, *found.polygons.mean(axis=1).T)
        notes.append(f"{int((keep & ~inside).sum())} labels outside the area")
        keep &= inside

    truth = GroundTruth(
        image_ids=(name,),
        class_names=tuple(class_names),
        image_index=np.zeros(int(keep.sum()), dtype=np.int64),
        class_index=np.array(
            [indices[label] for label, kept in zip(found.names, keep) if kept], dtype=np.int64
        ),
        polygons=found.polygons[keep],
        difficult=difficult[keep],
    )
    return ScoredScene(name, truth, _read_map(map_path), "; ".join(notes))


def _read_map(path: str | Path) -> Detections:
    """Read the detections of a map, in pixels of its scene."""
    _, columns, _ = read_vector_file(path)
    # A map without detections may have no columns at all, and that is no error.
    missing = [c for c in ("class_index", "score", *_BOX_COLUMNS) if c not in columns]
    if missing and columns:
        raise ValueError(
            f"{path} has no column {missing[0]!r}, so rsd2 scene did not write it; give its map"
        )

    scores = np.asarray(columns.get("score", []), dtype=np.float64)
    boxes = [np.asarray(columns.get(c, []), dtype=np.float64) for c in _BOX_COLUMNS]
    return Detections(
        image_index=np.zeros(len(scores), dtype=np.int64),
        class_index=np.asarray(columns.get("class_index", []), dtype=np.int64),
        scores=scores,
        boxes=np.stack(boxes, axis=1).reshape(-1, 5),
    )


def count_found(scores: DotaScores) -> tuple[int, int]:
    """Count objects over all classes: the mean of the classes' recalls would favour rare ones.

    Args:
        scores: scores of detections.

    Returns:
        (objects that were found at the lowest threshold, objects that count).
    """
    counted = scores.num_counted > 0
    found = scores.recall[0, counted] * scores.num_counted[counted]
    return round(float(found.sum())), int(scores.num_counted.sum())


def format_scores(scenes: Sequence[ScoredScene], block: float = 128.0) -> str:
    """Score maps, each and all together, by DOTA's protocol at an IoU of 0.5.

    Args:
        scenes: scenes to score, at least one.
        block: side of the blocks that are resampled for the interval, pixels of the scenes.

    Returns:
        A table with objects, detections, recall, AP50 in percent and its 95 % interval, and a note
        on the protocol.
    """
    entries = list(scenes)
    if len(entries) > 1:
        entries.append(_together(scenes))

    width = max(len("scene"), *(len(entry.name) for entry in entries))
    lines = [f"{'scene':{width}}  objects  detections  recall   AP50  95 % interval"]
    for entry in entries:
        scores = score_detections(entry.truth, entry.detections, iou_thresholds=[0.5])
        found, number = count_found(scores)
        recall = 100 * found / number if number else np.nan
        text = (
            f"{entry.name:{width}}  {number:7}  {len(entry.detections):10}  "
            f"{recall:6.1f}  {100 * scores.mean_ap()[0]:5.1f}"
        )

        # Neighbouring objects are alike, so blocks of the scene are resampled, not single
        # objects.
        drawn = 100 * resample_ap(entry.truth, entry.detections, block=block)
        if np.isfinite(drawn).any():
            low, high = np.nanpercentile(drawn, _INTERVAL)
            text += f"  {low:.1f} to {high:.1f}"
        lines.append(text + (f"  ({entry.note})" if entry.note else ""))

    lines.append(
        "AP50: DOTA's protocol (polygon IoU above 0.5, VOC 2007, mean over the classes) over the "
        "detections\nof the map, whose score threshold bounds the recall. Interval: 1000 "
        f"resamplings of blocks of {block:g} pixels."
    )
    return "\n".join(lines)


def _together(scenes: Sequence[ScoredScene]) -> ScoredScene:
    """Combine all scenes to one entry."""
    truths, found = [s.truth for s in scenes], [s.detections for s in scenes]
    numbers = range(len(scenes))
    truth = GroundTruth(
        # Numbered, because two scenes may have one name.
        image_ids=tuple(f"{number} {scene.name}" for number, scene in enumerate(scenes)),
        class_names=truths[0].class_names,
        image_index=np.concatenate([t.image_index + k for k, t in zip(numbers, truths)]),
        class_index=np.concatenate([t.class_index for t in truths]),
        polygons=np.concatenate([t.polygons for t in truths]),
        difficult=np.concatenate([t.difficult for t in truths]),
    )

    detections = Detections(
        image_index=np.concatenate([d.image_index + k for k, d in zip(numbers, found)]),
        class_index=np.concatenate([d.class_index for d in found]),
        scores=np.concatenate([d.scores for d in found]),
        boxes=np.concatenate([d.boxes for d in found]),
    )
    return ScoredScene("all", truth, detections)
