"""The last step of a study: a detector finds the objects of a harbour with coordinates."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rsd2.data.class_orders import SYNTHETIC_CLASSES
from rsd2.evaluation.scoring.dota import score_detections
from rsd2.geo.raster import Raster
from rsd2.inference.scene_scoring import count_found, read_scored_scene
from rsd2.io.image_io import read_image
from rsd2.study import Job, drawing_job, module_command

_SEED = 0  # no scene of the trainings lies in a harbour of its own
SCORE_THRESHOLD = 0.25


def harbour_jobs(folder: Path, run: str, side: int) -> list[Job]:
    """List the jobs that draw a georeferenced harbour and map it.

    Args:
        folder: output folder of the study.
        run: folder of the fine-tuning whose detector searches, relative to ``folder``.
        side: of the scene, pixels, a multiple of 16.

    Returns:
        The jobs; the map is ``maps/harbour_<side>.gpkg``, a picture lies beside it.
    """
    name = f"harbour_{side}"
    # One tile as large as the scene, because a harbour of several would have seams.
    look = ("--size", side, "--tile-size", side, "--themes", "marina", "--empty-fraction", 0)
    drawing = drawing_job(
        name,
        folder,
        f"data/{name}",
        "S000000.gpkg",
        images=1,
        seed=_SEED,
        options=("--georeferenced", *look, "--num-workers", 0),
    )

    trained, made = folder / run, f"maps/{name}.gpkg"
    mapping = module_command(
        "rsd2",
        "scene",
        *("--config-file", trained / "config.yaml", "--weights", trained / "model_final.pth"),
        *("--ema", "--input", folder / f"data/{name}/S000000.tif", "--output", folder / made),
        # Windows as large as the images of the training, which overlap by the longest boats.
        *("--window", 128, "--overlap", 48, "--score-threshold", SCORE_THRESHOLD),
    )
    needs = (name, run.replace("/", "_"))
    return [drawing, Job(f"map_{name}", mapping, needs, (made, f"maps/{name}.png"))]


@dataclass(frozen=True)
class Harbour:
    """A mapped harbour.

    Attributes:
        side: pixels.
        metres: side on the ground.
        objects: number of labelled objects that count.
        found: number of those that the map has with an IoU above 0.5.
        mapped: number of polygons on the map.
        classes: indices of the classes on the map.
        picture: (H, W, 3) uint8 RGB, the scene with the polygons.
        map_file: path of the map relative to the folder of the study.
        scene_file: likewise of the scene.
    """

    side: int
    metres: float
    objects: int
    found: int
    mapped: int
    classes: list[int]
    picture: np.ndarray
    map_file: str
    scene_file: str


def read_harbour(folder: Path, side: int) -> Harbour:
    """Read the map of a harbour, and compare it with the labels.

    Args:
        folder: output folder of the study, whose jobs of `harbour_jobs` are done.
        side: of the scene, pixels.

    Returns:
        What the map shows.

    Raises:
        OSError: a file is missing.
        ValueError: a file cannot be read.
    """
    name = f"harbour_{side}"
    map_file, scene_file = f"maps/{name}.gpkg", f"data/{name}/S000000.tif"
    scene = folder / scene_file
    with Raster(scene) as raster:
        scored = read_scored_scene(
            name, folder / map_file, scene.with_suffix(".gpkg"), raster, SYNTHETIC_CLASSES
        )
        metres = side * (raster.pixel_size or (1.0, 1.0))[0]
    found, objects = count_found(
        score_detections(scored.truth, scored.detections, iou_thresholds=[0.5])
    )
    return Harbour(
        side=side,
        metres=metres,
        objects=objects,
        found=found,
        mapped=len(scored.detections),
        classes=np.unique(scored.detections.class_index).tolist(),
        picture=read_image(folder / f"maps/{name}.png"),
        map_file=map_file,
        scene_file=scene_file,
    )
