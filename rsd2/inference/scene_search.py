"""Detection in a scene of any size, in parts that are kept: rows of windows over a raster.

A scene is searched on a grid of pixels, which is the raster's own or a resampled one. Its windows
lie in rows; each part of the run holds what was found in one or more rows, and is written whole.
Merging goes through the parts from top to bottom and holds no more than a few rows of windows, so
neither the search nor the merging needs memory for the scene.

Shapes: M windows of a row, N detections, H, W size of the grid.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import shapely
import torch

from rsd2.evaluation.records import make_record
from rsd2.geo.grid import Grid
from rsd2.geo.radiometry import Radiometry
from rsd2.geo.raster import Raster, RasterWindow
from rsd2.io.files import replaced_file

from .seams import WindowDetections, to_window_detections
from .sliding_window import Detect, WindowParameters, place_windows
from .streamed_merging import StreamedMerging


@dataclass(frozen=True)
class ScenePart:
    """Some rows of windows that are searched together.

    Attributes:
        first: index of the first row.
        rows: windows (M, 4) x0, y0, x1, y1 of each row, pixels of the grid.
        path: file of the part.
    """

    first: int
    rows: tuple[np.ndarray, ...]
    path: Path

    @property
    def num_windows(self) -> int:
        """Number of windows in all rows."""
        return sum(len(row) for row in self.rows)

    def is_done(self) -> bool:
        """Tell whether the part was searched."""
        return self.path.is_file()


@dataclass(frozen=True)
class Scene:
    """What is searched, and how.

    Attributes:
        raster: the opened raster.
        radiometry: how its numbers become colours; fixed.
        grid: the pixels that the model sees.
        parameters: windows, merging, seams and the score threshold.
        area: polygon of interest in pixels of the grid; None for the whole scene.
    """

    raster: Raster
    radiometry: Radiometry
    grid: Grid
    parameters: WindowParameters
    area: shapely.Geometry | None = None

    def rows(self) -> list[np.ndarray]:
        """Place the windows.

        Returns:
            For each row its windows (M, 4) that meet the area, from left to right; rows from top
            to bottom, without those that hold none.
        """
        windows = place_windows(self.grid.height, self.grid.width, self.parameters)
        if self.area is not None:
            windows = windows[shapely.intersects(self.area, shapely.box(*windows.T))]
        return [windows[windows[:, 1] == top] for top in np.unique(windows[:, 1])]

    def parts(self, folder: Path, rows_per_part: int = 1) -> list[ScenePart]:
        """Divide the rows among parts.

        Args:
            folder: folder of the parts' files.
            rows_per_part: rows of a part, >= 1; the result does not depend on it.

        Returns:
            The parts from top to bottom.
        """
        rows = self.rows()
        return [
            ScenePart(
                first,
                tuple(rows[first : first + rows_per_part]),
                folder / f"rows-{first:06d}-{rows_per_part}.npz",
            )
            for first in range(0, len(rows), rows_per_part)
        ]


class SceneReader:
    """Reads windows ahead of the model, in one thread of its own; a context.

    Args:
        scene: what is read. GDAL's handles belong to one thread at a time: nobody else may read the
            raster meanwhile.
        ahead: windows that are read before they are asked for, >= 1.
    """

    def __init__(self, scene: Scene, ahead: int = 2) -> None:
        self.scene, self.ahead = scene, ahead
        self._pool = ThreadPoolExecutor(1)

    def __enter__(self) -> SceneReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def read(self, windows: np.ndarray) -> Iterator[tuple[np.ndarray, RasterWindow]]:
        """Read windows.

        Args:
            windows: (M, 4) x0, y0, x1, y1, pixels of the grid.

        Yields:
            each window and what is there.

        Raises:
            RasterError: the file is damaged in a window.
        """
        waiting: list[Future[RasterWindow]] = []
        for index in range(len(windows)):
            while len(waiting) <= self.ahead and index + len(waiting) < len(windows):
                waiting.append(self._pool.submit(self._read, windows[index + len(waiting)]))
            yield windows[index], waiting.pop(0).result()

    def _read(self, window: np.ndarray) -> RasterWindow:
        x0, y0, x1, y1 = window.tolist()
        scene = self.scene
        return scene.raster.read_window(y0, x0, y1 - y0, x1 - x0, scene.radiometry, scene.grid)


def search_part(
    part: ScenePart,
    reader: SceneReader,
    detect: Detect,
    progress: Callable[[int, int], None] = lambda windows, detections: None,
) -> None:
    """Search the rows of a part and write its file.

    Windows without any data are not shown to the model.

    Args:
        part: the rows.
        reader: reader of the scene.
        detect: the model.
        progress: called after each batch with the windows that were done and the detections that
            were found in it.

    Raises:
        RasterError: the file is damaged in a window.
        OSError: the part cannot be written.
        ValueError: ``detect`` returns another number of results than it was given images.
    """
    counts: Counter[str] = Counter()
    found: list[WindowDetections] = []
    row_of: list[np.ndarray] = []
    for index, row in enumerate(part.rows):
        for batch in _batches(reader.read(row), reader.scene.parameters.batch_size):
            filled = [(window, shown) for window, shown in batch if shown.valid.any()]
            counts["windows"] += len(filled)
            counts["windows_without_data"] += len(batch) - len(filled)

            before = sum(len(one.scores) for one in found)
            outputs = detect([shown.pixels for _, shown in filled]) if filled else []
            if len(outputs) != len(filled):
                raise ValueError(f"detect returned {len(outputs)} results for {len(filled)} images")
            for (window, _), output in zip(filled, outputs):
                found.append(_accepted(window, output, reader.scene, counts))
                row_of.append(np.full(len(found[-1].scores), index))
            progress(len(batch), sum(len(one.scores) for one in found) - before)

    together = _concatenate(found)
    part.path.parent.mkdir(parents=True, exist_ok=True)
    with replaced_file(part.path) as temporary, temporary.open("wb") as stream:
        np.savez(
            stream,
            row=np.concatenate([np.zeros(0, dtype=np.int64), *row_of]),
            counts=np.array(json.dumps(counts, sort_keys=True)),
            **together._asdict(),
        )


def merge_parts(
    scene: Scene, parts: Sequence[ScenePart]
) -> Iterator[tuple[WindowDetections, Counter[str]]]:
    """Merge the parts of a scene, which are all done, from top to bottom.

    Args:
        scene: what was searched.
        parts: all of its parts.

    Yields:
        detections that are final, from top to bottom, in pixels of the grid, and counts of what
        happened so far; those of the last item are complete.

    Raises:
        OSError: a part is missing or damaged.
    """
    size, parameters = (scene.grid.height, scene.grid.width), scene.parameters
    merging = StreamedMerging(size, parameters.window, parameters.seams, parameters.nms_threshold)
    counts: Counter[str] = Counter()
    tops = [int(row[0, 1]) for part in parts for row in part.rows]
    following = [*tops[1:], scene.grid.height]

    place = 0
    for part in parts:
        found, row_of, seen = _read_part(part)
        counts.update(seen)
        for index in range(len(part.rows)):
            final = merging.add(found.select(row_of == index), following[place])
            place += 1
            yield final, counts

    final = merging.finish()
    counts.update(
        seams_dropped=merging.dropped,
        seams_joined=merging.joined,
        duplicates_suppressed=merging.suppressed,
    )
    yield final, counts


def _batches(
    items: Iterator[tuple[np.ndarray, RasterWindow]], size: int
) -> Iterator[list[tuple[np.ndarray, RasterWindow]]]:
    """Lists of so many items; a batch never spans two rows, so that it does not depend on parts."""
    batch = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _accepted(
    window: np.ndarray,
    output: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    scene: Scene,
    counts: Counter[str],
) -> WindowDetections:
    """Detections of a window that are finite, good enough and inside the area; counts the rest."""
    x0, y0, x1, y1 = window.tolist()
    tile = {"x": x0, "y": y0, "width": x1 - x0, "height": y1 - y0}
    record = make_record("", tile, *output, scene.parameters.score_threshold)
    found = to_window_detections([record])

    inside = np.ones(len(found.scores), dtype=bool)
    if scene.area is not None:
        inside = shapely.contains_xy(scene.area, *found.boxes[:, :2].T)
    counts["detections_not_finite"] += record.num_not_finite
    counts["detections_below_threshold"] += record.num_below_floor
    counts["detections_outside_area"] += int((~inside).sum())
    return found.select(inside)


def _concatenate(found: Sequence[WindowDetections]) -> WindowDetections:
    nothing = to_window_detections([])
    return WindowDetections(*(np.concatenate(values) for values in zip(nothing, *found)))


def _read_part(part: ScenePart) -> tuple[WindowDetections, np.ndarray, dict[str, int]]:
    """Detections of a part, the row of each within the part, and counts."""
    with np.load(part.path) as arrays:
        found = WindowDetections(*(arrays[name] for name in WindowDetections._fields))
        return found, arrays["row"], json.loads(str(arrays["counts"]))
