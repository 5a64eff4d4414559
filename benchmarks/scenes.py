"""From a scene to its map, against the least that any program does: decode and run the model.

The model is the small rotated DETR with random weights, which keeps its 100 best boxes of each
window however unsure: as many objects as in a harbour full of boats. The scenes are written once,
into folders that are gone when the process ends.
"""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import rasterio
import torch
from detectron2.config import instantiate
from rasterio.transform import Affine
from rasterio.windows import Window

from benchmarks.harness import Case
from rsd2.commands.predict_scene import get_parser, read_radiometry
from rsd2.commands.scene_run import SceneRun, search_scene
from rsd2.config import get_config
from rsd2.geo.scene_files import SceneFiles
from rsd2.inference.image_detector import ImageDetector
from rsd2.inference.sliding_window import WindowParameters, place_windows

LAYOUTS = {"tiled": {"tiled": True, "blockxsize": 512, "blockysize": 512}, "striped": {}}

_FOLDERS: list[tempfile.TemporaryDirectory] = []  # kept alive as long as the process


def cases(side: int = 2048, window: int = 512) -> list[Case]:
    """Scenes in tiles and in strips, 8-bit RGB, compressed.

    Args:
        side: side of the scenes, pixels.
        window: side of the windows, pixels; they overlap by a fifth.
    """
    parameters = WindowParameters(window, window // 5, score_threshold=0.0)
    scene, detector = cache(lambda layout: _write_scene(layout, side)), cache(_build_detector)
    size = (
        f"{side} x {side} pixels, {len(place_windows(side, side, parameters))} windows of {window}"
    )
    return [
        Case(
            f"scene {layout}",
            size,
            lambda layout=layout: _make_map(scene(layout), parameters, detector()),
            {
                "model and decoding alone": lambda layout=layout: _decode_and_detect(
                    scene(layout), parameters, detector()
                )
            },
            note="ours also reads ahead, merges, and writes the parts, the map and the picture",
        )
        for layout in LAYOUTS
    ]


def _build_detector() -> ImageDetector:
    torch.manual_seed(0)
    model = instantiate(get_config("common/models/rotated_deformable_detr_small.py").model)
    return ImageDetector(model)


def _write_scene(layout: str, side: int) -> Path:
    _FOLDERS.append(tempfile.TemporaryDirectory())
    path = Path(_FOLDERS[-1].name) / "scene.tif"
    # Noise of low contrast on patches: it is compressed to about half, as photographs are.
    random = np.random.default_rng(0)
    patches = random.integers(40, 200, (3, side // 32 + 1, side // 32 + 1), dtype=np.uint8)
    pixels = patches.repeat(32, 1).repeat(32, 2)[:, :side, :side]
    pixels = pixels + random.integers(0, 16, (3, side, side), dtype=np.uint8)

    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=side,
        width=side,
        count=3,
        dtype="uint8",
        crs="EPSG:32632",
        transform=Affine(0.5, 0, 565000, 0, -0.5, 5933000),
        compress="deflate",
        interleave="pixel",
        **LAYOUTS[layout],
    ) as dataset:
        dataset.write(pixels)
    return path


def _make_map(scene: Path, parameters: WindowParameters, detector: ImageDetector) -> int:
    path = scene.with_suffix(".gpkg")
    names = ["--config-file", "-", "--input", str(scene), "--output", str(path), "--overwrite"]
    args = get_parser().parse_args(names)
    rule = read_radiometry(args, None)
    run = SceneRun(args, parameters, rule, detector, [], {}, (0, 1))
    search_scene(SceneFiles("scene", (str(scene),)), path, run)
    return path.stat().st_size


def _decode_and_detect(scene: Path, parameters: WindowParameters, detector: ImageDetector) -> int:
    found = 0
    with rasterio.open(scene) as dataset:
        for x0, y0, x1, y1 in place_windows(dataset.height, dataset.width, parameters).tolist():
            pixels = dataset.read(window=Window(x0, y0, x1 - x0, y1 - y0))
            ((boxes, _, _),) = detector([pixels.transpose(1, 2, 0)])
            found += len(boxes)
    return found
