"""The map of a scene: its merged detections as a vector file, and a picture to look at.

Shapes: N detections, H, W size of the picture.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rsd2.data.drawing.boxes import class_color
from rsd2.geo.vector_files import VectorWriter
from rsd2.io.image_io import write_image
from rsd2.structures import boxes_to_corners, corners_to_boxes

from .prediction_files import name_classes
from .quicklook import draw_quicklook
from .scene_search import Scene, ScenePart, merge_parts
from .seams import WindowDetections

_NOTHING = (np.zeros((0, 4, 2), dtype=np.float32), np.zeros(0, dtype=np.int64))
"""Polygons and classes of no object."""


def write_map(
    path: str | Path,
    scene: Scene,
    parts: Sequence[ScenePart],
    class_names: Sequence[str],
    metadata: Mapping[str, Any],
    quicklook: str | Path | None = None,
) -> dict[str, int]:
    """Merge the parts of a scene, and write what was found as a map.

    Every object is a polygon in the scene's coordinate system, or in pixels where it has none, with
    its class, score, azimuth, length, width, area, the longitude and latitude of its centre, and
    its box in pixels of the scene. Equal parts give equal bytes.

    Args:
        path: vector file, by its ending; replaced if it exists, and left alone after an error.
        scene: what was searched.
        parts: all of its parts, done.
        class_names: names of all classes; none writes the indices.
        metadata: how the detections were made, plain values; kept in the file.
        quicklook: PNG file of the scene with the detections; None for none.

    Returns:
        Counts of what was found and of what was left out, and why.

    Raises:
        VectorFileError: the vector file cannot be written.
        OSError: a part is damaged, or the picture cannot be written.
        ValueError: a class index has no name.
    """
    georeference = scene.raster.georeference
    colors = {name: class_color(index) for index, name in enumerate(class_names)}
    counts: Counter[str] = Counter()
    outlines: list[tuple[np.ndarray, np.ndarray]] = []

    # What the file says of itself is known only after the last part, so the parts are merged twice:
    # merging is cheap beside the search, and keeping the detections would need memory for them.
    for _, seen in merge_parts(scene, parts):
        counts = seen
    described = {**metadata, "counts": dict(sorted(counts.items()))}

    with VectorWriter(path, crs=georeference.crs, metadata=described, colors=colors) as writer:
        for found, _ in merge_parts(scene, parts):
            polygons = scene.grid.to_scene(boxes_to_corners(torch.from_numpy(found.boxes)).numpy())
            columns = _columns(scene, found, polygons, class_names)
            places = georeference.to_crs(polygons)
            known = np.isfinite(places).all(axis=(1, 2))
            writer.add(
                places[known],
                {name: np.asarray(values)[known] for name, values in columns.items()},
            )
            counts["detections"] += int(known.sum())
            counts["detections_without_place"] += int((~known).sum())
            outlines.append((polygons[known].astype(np.float32), found.classes[known]))

    if quicklook is not None:
        polygons, classes = (np.concatenate(items) for items in zip(_NOTHING, *outlines))
        picture = draw_quicklook(scene.raster, scene.radiometry, polygons, classes)
        write_image(quicklook, picture)
    return dict(counts)


def _columns(
    scene: Scene, found: WindowDetections, polygons: np.ndarray, class_names: Sequence[str]
) -> dict[str, Any]:
    """The attributes of the detections by the names of their columns."""
    ground = scene.raster.georeference.measure(polygons)
    boxes = corners_to_boxes(torch.from_numpy(polygons)).numpy().reshape(-1, 5)
    return {
        "class": name_classes(found.classes.tolist(), class_names),
        "class_index": found.classes,
        "score": np.round(found.scores, 6),
        "azimuth": np.round(ground.azimuth, 3),
        "length_m": np.round(ground.length, 3),
        "width_m": np.round(ground.width, 3),
        "area_m2": np.round(ground.area, 3),
        "longitude": np.round(ground.longitude, 8),
        "latitude": np.round(ground.latitude, 8),
        **{
            name: np.round(boxes[:, index], 3)
            for index, name in enumerate(("x_px", "y_px", "w_px", "h_px", "angle_px"))
        },
        "scene": [Path(scene.raster.name).name] * len(boxes),
    }
