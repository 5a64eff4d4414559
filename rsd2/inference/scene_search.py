"""Detection in a scene of any size, in resumable parts that hold rows of windows.

A scene is searched on a grid of pixels, either the raster's own or a resampled one. Its windows lie
in rows; each part of the run holds the detections of one or more rows and is written atomically.
Merging goes through the parts from top to bottom and holds only a few rows of windows, so neither
the search nor the merging needs memory for the whole scene.

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
from rsd2.io.arrays import read_arrays
from rsd2.io.files import make_output_folder, replaced_file

from .seams import WindowDetections, to_window_detections
from .sliding_window import Detect, WindowParameters, place_windows
from .streamed_merging import StreamedMerging


@dataclass(frozen=True)
class ScenePart:
    """Rows of windows that are searched together.

    Attributes:
        first: index of the part's first row in the scene.
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
        """Tell whether the part has been searched."""
        return self.path.is_file()


@dataclass(frozen=True)
class Scene:
    """A raster and the settings of its search.

    Attributes:
        raster: the opened raster.
        radiometry: measured rule that turns the raster's numbers into colours.
        grid: grid of the pixels that the model sees.
        parameters: windows, merging, seams and the score threshold.
        area: polygon of interest in pixels of the grid; None for the whole scene.
    """

    raster: Raster
    radiometry: Radiometry
    grid: Grid
    parameters: WindowParameters
    area: shapely.Geometry | None = None

    def rows(self) -> list[np.ndarray]:
        """Place the windows in rows.

        Returns:
            The windows (M, 4) of each row that meet the area, from left to right; rows from top to
            bottom, without empty ones.
        """
        windows = place_windows(self.grid.height, self.grid.width, self.parameters)
        if self.area is not None:
            windows = windows[shapely.intersects(self.area, shapely.box(*windows.T))]
        return [windows[windows[:, 1] == top] for top in np.unique(windows[:, 1])]

    def parts(self, folder: Path, rows_per_part: int = 1) -> list[ScenePart]:
        """Divide the rows among parts.

        Args:
            folder: folder of the parts' files.
            rows_per_part: number of rows in a part, >= 1; the result does not depend on it.

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
    """Context manager that reads windows ahead of the model, in its own thread.

    Args:
        scene: scene to read. GDAL's handles belong to one thread at a time, so nothing else may
            read the raster meanwhile.
        ahead: number of windows to read before they are asked for, >= 1.
    """

    def __init__(self, scene: Scene, ahead: int = 2) -> None:
        self.scene, self.ahead = scene, ahead
        self._pool = ThreadPoolExecutor(1)

    def __enter__(self) -> SceneReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def read(self, windows: np.ndarray) -> Iterator[tuple[np.ndarray, RasterWindow]]:
        """Read windows in their order.

        Args:
            windows: (M, 4) x0, y0, x1, y1, pixels of the grid.

        Yields:
            Each window and its pixels.

        Raises:
            RasterError: the file is damaged in a window.
        """
        waiting: list[Future[RasterWindow]] = []
        # The requested window, and up to ``ahead`` more behind it.
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

    Windows without any data never reach the model.

    Args:
        part: rows to search.
        reader: reader of the scene.
        detect: the model.
        progress: called after each batch with the numbers of its windows and of the detections that
            it found.

    Raises:
        RasterError: the file is damaged in a window.
        OSError: the part cannot be written.
        ValueError: ``detect`` returns another number of results than it got images.
    """
    counts: Counter[str] = Counter()
    found: list[WindowDetections] = []
    row_of: list[np.ndarray] = []
    for index, row in enumerate(part.rows):
        for batch in _batches(reader.read(row), reader.scene.parameters.batch_size):
            # A rotated scene has empty corners, and searching them costs as much as searching data.
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

    # Written at the end in one piece: a part that exists is complete.
    together = _concatenate(found)
    make_output_folder(part.path.parent)
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
    """Merge the searched parts of a scene from top to bottom.

    Args:
        scene: scene that was searched.
        parts: all parts of the scene.

    Yields:
        Final detections, from top to bottom, in pixels of the grid, and the counts so far; the last
        counts are complete.

    Raises:
        OSError: a part is missing or damaged.
    """
    size, parameters = (scene.grid.height, scene.grid.width), scene.parameters
    merging = StreamedMerging(size, parameters.window, parameters.seams, parameters.nms_threshold)
    counts: Counter[str] = Counter()
    tops = [int(row[0, 1]) for part in parts for row in part.rows]
    # The next row's top line decides which detections no later window can change.
    following = [*tops[1:], scene.grid.height]

    place = 0
    for part in parts:
        found, row_of, seen = _read_part(part)
        counts.update(seen)
        for index in range(len(part.rows)):
            final = merging.add(found.select(row_of == index), following[place])

            # One row at a time, so that the result does not depend on how rows were put into
            # parts.
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
    """Yield lists of ``size`` items; batches never span two rows, so parts do not matter."""
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
    """Return a window's finite, sure detections inside the area, and count the others."""
    x0, y0, x1, y1 = window.tolist()
    tile = {"x": x0, "y": y0, "width": x1 - x0, "height": y1 - y0}
    record = make_record("", tile, *output, scene.parameters.score_threshold)
    found = to_window_detections([record])

    # By their centres, so that an object belongs to exactly one of two neighbouring areas.
    inside = np.ones(len(found.scores), dtype=bool)
    if scene.area is not None:
        inside = shapely.contains_xy(scene.area, *found.boxes[:, :2].T)

    counts["detections_not_finite"] += record.num_not_finite
    counts["detections_below_threshold"] += record.num_below_floor
    counts["detections_outside_area"] += int((~inside).sum())
    return found.select(inside)


def _concatenate(found: Sequence[WindowDetections]) -> WindowDetections:
    # An empty entry first, because a part may hold no window with data.
    nothing = to_window_detections([])
    return WindowDetections(*(np.concatenate(values) for values in zip(nothing, *found)))


def _read_part(part: ScenePart) -> tuple[WindowDetections, np.ndarray, dict[str, int]]:
    """Return the detections of a part, the row of each within the part, and counts."""
    arrays = read_arrays(part.path, (*WindowDetections._fields, "row", "counts"))
    found = WindowDetections(*(arrays[name] for name in WindowDetections._fields))
    return found, arrays["row"], json.loads(str(arrays["counts"]))
