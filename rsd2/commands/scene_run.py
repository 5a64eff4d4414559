"""The search of one scene for `rsd2 scene`: plan its parts, search them, write the map.

One process takes the three steps one after the other; workers of a cluster take them as calls.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import shapely
from tqdm import tqdm

from rsd2.geo.labels import read_area
from rsd2.geo.radiometry import Radiometry
from rsd2.geo.raster import Raster
from rsd2.geo.scene_files import SceneFiles
from rsd2.geo.vector_files import read_metadata
from rsd2.inference.image_detector import note_on_windows
from rsd2.inference.scene_results import write_map
from rsd2.inference.scene_search import Scene, ScenePart, SceneReader, search_part
from rsd2.inference.sliding_window import Detect, WindowParameters
from rsd2.io.folder_run import FolderRun, make_run_id


class Outcome(NamedTuple):
    """What became of a scene.

    Args:
        name: name of the scene.
        text: sentence about its map, or why there is none.
        failed: whether it failed.
    """

    name: str
    text: str
    failed: bool = False


@dataclass(frozen=True)
class SceneRun:
    """Settings that all scenes of a command share.

    Attributes:
        args: parsed arguments of the command line.
        parameters: windows, merging, seams and the score threshold.
        radiometry: rule that turns numbers into colours, not measured yet.
        detect: model as a function from images to detections.
        class_names: names of the model's classes; empty if unknown.
        origin: provenance of model and weights, plain values.
        shard: (rank, number of processes).
    """

    args: argparse.Namespace
    parameters: WindowParameters
    radiometry: Radiometry
    detect: Detect
    class_names: list[str]
    origin: dict[str, Any]
    shard: tuple[int, int]


def open_scene(files: SceneFiles, run: SceneRun) -> Scene:
    """Open a scene, and measure its radiometry and area.

    Args:
        files: files of the scene.
        run: settings of the search.

    Returns:
        The scene.

    Raises:
        ValueError: the raster, its numbers or the area of interest cannot be used.
        OSError: a file is missing.
    """
    args = run.args
    raster = Raster(files.paths[0] if len(files.paths) == 1 else files.paths, crs=args.crs)
    grid = raster.grid(args.gsd, args.scale)
    area = None
    if args.area is not None:
        inside = read_area(args.area, raster.georeference, (raster.height, raster.width))
        area = shapely.transform(inside, grid.from_scene)

    # Measured once: percentiles of each window would change the colours at every border.
    scene = Scene(raster, run.radiometry.measure(raster), grid, run.parameters, area)
    for note in (
        raster.georeference.note,
        raster.note_on_layout(round(run.parameters.window)),
        note_on_windows(run.detect, grid.height, grid.width, run.parameters),
    ):
        if note:
            print(note, file=sys.stderr)
    return scene


def describe_run(scene: Scene, run: SceneRun) -> dict[str, Any]:
    """Collect the settings that decide the detections, for the map and the name of the parts.

    Args:
        scene: the scene.
        run: settings of the search.

    Returns:
        Plain values; ``run`` is a hash of the others and of the sizes and times of the files.
    """
    files = [Path(path) for path in scene.raster.paths]
    described = {
        **run.origin,
        "scene": [file.name for file in files],
        "radiometry": scene.radiometry.to_dict(),
        "pixels": {"height": scene.grid.height, "width": scene.grid.width},
        "gsd": run.args.gsd,
        "windows": asdict(run.parameters),
        "classes": run.class_names,
        "area": None if scene.area is None else scene.area.wkt,
    }

    # Sizes and times stand for the content, because scenes have gigabytes.
    stamps = []
    for file in files:
        if file.is_file():
            status = file.stat()
            stamps.append(f"{file.name} {status.st_size} {status.st_mtime_ns}")
        else:
            stamps.append(str(file))  # a remote file has no stamp here

    return {"run": make_run_id(described, stamps), **described}


@dataclass(frozen=True)
class PlannedScene:
    """A scene whose parts are known; it can be pickled.

    Attributes:
        name: name of the scene, for the bar.
        path: path of the map.
        scene: the scene, with its measured radiometry.
        metadata: settings that decide the detections.
        parts: all parts of the scene.
    """

    name: str
    path: Path
    scene: Scene
    metadata: dict[str, Any]
    parts: list[ScenePart]


def plan_scene(files: SceneFiles, path: Path, run: SceneRun) -> PlannedScene | str:
    """Open a scene and list its parts.

    Args:
        files: files of the scene.
        path: path of the map.
        run: settings of the search.

    Returns:
        The planned scene, whose raster is open; or a sentence if its map is up to date.

    Raises:
        ValueError: the scene cannot be used.
        OSError: a file cannot be read.
    """
    scene = open_scene(files, run)
    metadata = describe_run(scene, run)
    if not run.args.overwrite and _is_up_to_date(path, metadata["run"]):
        scene.raster.close()
        return f"{path} is up to date; --overwrite makes it again"

    folder = path.with_name(f"{path.name}.parts") / metadata["run"]
    # Old parts of the same run would be taken for finished ones.
    if run.args.overwrite:
        shutil.rmtree(folder, ignore_errors=True)
    parts = scene.parts(folder, run.args.rows_per_part)
    return PlannedScene(files.name, path, scene, metadata, parts)


def finish_scene(planned: PlannedScene, run: SceneRun) -> str:
    """Write the map of a scene, all parts of which are searched.

    Args:
        planned: the scene.
        run: settings of the search.

    Returns:
        One sentence about the result.

    Raises:
        ValueError: the map cannot be written.
        OSError: a file cannot be read or written.
    """
    path = planned.path
    picture = None if run.args.no_quicklook else path.with_suffix(".png")
    counts = write_map(
        path, planned.scene, planned.parts, run.class_names, planned.metadata, picture
    )

    # Another process may be reading the parts at this moment.
    if not run.args.keep_parts and run.shard == (0, 1):
        shutil.rmtree(path.with_name(f"{path.name}.parts"))
    return _summary(path, counts)


def search_scene(files: SceneFiles, path: Path, run: SceneRun) -> str:
    """Search a scene, resuming an unfinished search, and write its map when all parts are done.

    Args:
        files: files of the scene.
        path: path of the map.
        run: settings of the search.

    Returns:
        One sentence about the result.

    Raises:
        ValueError: the scene or the map cannot be used.
        OSError: a file cannot be read or written.
    """
    planned = plan_scene(files, path, run)
    if isinstance(planned, str):
        return planned

    with planned.scene.raster:
        parts_run = FolderRun(planned.parts, ScenePart.is_done, run.shard)
        _search(planned.scene, parts_run, run.detect, files.name)
        if not parts_run.is_finished():
            return f"{path} waits for the parts of other processes"
        return finish_scene(planned, run)


def _is_up_to_date(path: Path, run_id: str) -> bool:
    """Tell whether the map exists and comes from the same run."""
    if not path.is_file():
        return False
    try:
        return read_metadata(path).get("run") == run_id
    except (ValueError, OSError):
        return False


def _search(scene: Scene, run: FolderRun[ScenePart], detect: Detect, name: str) -> None:
    """Search the missing parts of this process, with a bar of windows and detections."""
    total = sum(part.num_windows for part in run.mine)
    done = total - sum(part.num_windows for part in run.missing)
    # Two batches ahead keep the model busy while GDAL decodes.
    ahead = 2 * scene.parameters.batch_size
    with (
        SceneReader(scene, ahead) as reader,
        tqdm(total=total, initial=done, desc=name, unit="window") as bar,
    ):
        detections = 0

        def show(windows: int, found: int) -> None:
            nonlocal detections
            detections += found
            bar.set_postfix(detections=detections, refresh=False)
            bar.update(windows)

        def search(part: ScenePart) -> None:
            search_part(part, reader, detect, show)

        run.make(search, title=name, unit="part", progress=False)


def _summary(path: Path, counts: dict[str, int]) -> str:
    """Return a sentence about a map."""
    text = f"{path}: {counts['detections']} detections in {counts['windows']} windows"
    reasons = {
        "windows_without_data": "windows without data",
        "detections_below_threshold": "more below the score threshold",
        "detections_outside_area": "outside the area",
        "seams_dropped": "pieces dropped at seams",
        "seams_joined": "joined from pieces",
        "detections_without_place": "without a place on the ground",
    }
    # Only what happened is mentioned, because most runs drop nothing.
    notes = [f"{counts[key]} {words}" for key, words in reasons.items() if counts.get(key)]
    return text + (f" ({', '.join(notes)})" if notes else "")
