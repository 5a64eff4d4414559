"""Detect objects in satellite scenes of any size, and write maps.

    rsd2 scene --config-file CONFIG.py --weights model_final.pth --input port.tif \\
        --output port.gpkg
    rsd2 scene --config-file CONFIG.py --weights model_final.pth --input scenes/ --output maps \\
        --format geojson --percentile 2 98 --gsd 0.5 --area harbour.geojson
    rsd2 scene --config-file CONFIG.py --weights model_final.pth --stack \\
        --input B04.tif B03.tif B02.tif --range 0 3000 --output port.gpkg

A scene is any raster that GDAL can read: GeoTIFF in tiles or strips, COG, JPEG 2000, VRT mosaics; a
folder of such files, a list of them (.txt), a STAC item (.json), or with --stack one file for each
band. It is read window by window and never as a whole, in the pixels of the file or, with --gsd,
in those of the model. Numbers of more than 8 bits need a rule: --range, --percentile, or the
``radiometry`` of the config's test mapper.

The map has a polygon for each object, in the scene's coordinate system, with class, score, azimuth
of the long side (degrees clockwise from true north), length, width and area on the ground, and
longitude and latitude of the centre. A GeoPackage opens coloured by class in QGIS. The ending of
--output, or --format where that is a folder, chooses among .gpkg, .geojson, .geojsonl, .fgb, .csv.
A picture of the scene with the detections lies beside the map, as <map>.png.

With --labels the maps are scored when they are written: average precision at an IoU of 0.5 with the
number of objects and an interval. Give a low --score-threshold, like 0.05, for that.

The same command resumes the run: finished rows of windows lie in <map>.parts until the map is
written. Several processes share the rows by RANK and WORLD_SIZE, as torchrun and job arrays
set them; the last process writes the map. With --engine ray, workers of a Ray cluster share them.

Exit code 0: all done. 1: some scenes could not be read; they are listed, the others are done.
2: nothing could be done, or writing failed. 130: interrupted; the same command continues.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from rsd2.config import ConfigError
from rsd2.data.datasets.scenes import find_labels, read_labels
from rsd2.data.formats.coco_shapes import CROWDS
from rsd2.data.mappers.image_mapper import check_channel_order
from rsd2.geo.labels import read_area
from rsd2.geo.radiometry import Radiometry
from rsd2.geo.raster import Raster
from rsd2.geo.scene_files import SceneFiles, find_scenes
from rsd2.geo.vector_files import FORMATS, check_vector_output
from rsd2.inference.scene_scoring import format_scores, read_scored_scene
from rsd2.io.files import file_digest, make_output_folder
from rsd2.io.folder_run import shard_from_environment
from rsd2.io.ray_pool import RayPool, check_cluster, import_ray
from rsd2.weights.errors import CheckpointError

from .model_loading import (
    build_image_detector,
    class_names,
    read_model_config,
    read_parameters,
    read_test_mapper,
)
from .scene_fleet import SceneWorker, search_by_workers
from .scene_run import Outcome, SceneRun, search_scene


def get_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add(
        "--config-file", metavar="FILE", help="LazyConfig, .py or saved .yaml; not of packed models"
    )
    add("--weights", metavar="FILE", help="checkpoint or packed model; else that of the config")
    add("--ema", action="store_true", help="use the averaged weights of the checkpoint")
    add("--input", required=True, nargs="+", metavar="PATH", help="scenes, see above")
    add("--stack", action="store_true", help="the inputs are the bands of one scene")
    add("--crs", help="coordinate system to assume instead of the files' own, like EPSG:32633")
    add("--output", required=True, metavar="PATH", help="vector file, or a folder of them")
    add("--format", choices=sorted(ending[1:] for ending in FORMATS), default="gpkg",
        help="format of the maps in an output folder (default gpkg)")  # fmt: skip
    add("--area", metavar="FILE", help="polygons of interest, GeoJSON, GPKG or FGB in any CRS")

    add("--labels", nargs="+", metavar="PATH",
        help="score the maps: a folder with a file of each scene's name, or a file for each scene, "
        "vector file or COCO")  # fmt: skip
    add("--class-column", default="class", metavar="NAME",
        help="column with the classes in vector files (default class); '' if there is none and "
        "all are the first class")  # fmt: skip
    add("--crowds", choices=CROWDS, default="detect",
        help="meaning of iscrowd in COCO labels: objects like others, difficult ones that do not "
        "count, or detect (default): objects if all are marked")  # fmt: skip

    model = parser.add_argument_group("detection")
    add = model.add_argument
    add("--score-threshold", type=float, default=0.3, help="lowest score reported (default 0.3)")
    add("--window", type=int,
        help="side of the windows, pixels (default 1024, or as much as a training image showed, "
        "where objects in 1024 would have other sizes for the model)")  # fmt: skip
    add("--overlap", type=int,
        help="overlap of neighbouring windows (default 200, at most a quarter of a default "
        "window)")  # fmt: skip
    add("--seams", choices=("drop", "join", "keep"), default="drop",
        help="pieces of objects at a window's border are dropped where another window sees more "
        "(drop), joined where none sees the whole (join), or kept (keep)")  # fmt: skip
    add("--nms-threshold", type=float, default=0.1,
        help="IoU at which detections of several windows are merged (default 0.1)")  # fmt: skip
    add("--batch-size", type=int, default=1, help="windows in the model at once (default 1)")
    add("--padding", action="store_true", help="fill windows that leave the scene")
    add("--classes", nargs="+", metavar="NAME", help="names; those of the test set by default")
    add("--device", help="auto, cpu, cuda or cuda:N; train.device by default")

    pixels = parser.add_argument_group("pixels")
    add = pixels.add_argument
    add("--gsd", type=float, metavar="METRES", help="resample to pixels of this size")
    add("--scale", type=float, default=1.0, help="resample by this factor, above 1 enlarges")
    add("--bands", nargs="+", metavar="BAND", help="numbers from 1, or names, in the model's order")
    add("--range", nargs=2, type=float, metavar=("LOW", "HIGH"), help="numbers that become 0, 255")
    add("--percentile", nargs=2, type=float, metavar=("LOW", "HIGH"),
        help="percentiles of each scene that become 0, 255, measured once, like 2 98")  # fmt: skip
    add("--gamma", type=float, help="above 1 brightens (default 1)")
    add("--nodata", type=float, help="number that means no data, if the file does not say so")

    run = parser.add_argument_group("the run")
    add = run.add_argument
    add("--engine", choices=("local", "ray"), default="local",
        help="search in this process or by workers of a Ray cluster (extra fleet)")  # fmt: skip
    add("--ray-address", metavar="ADDRESS",
        help="existing Ray cluster, like auto or ray://head:10001; by default this machine "
        "becomes one for the run")  # fmt: skip
    add("--ray-workers", type=int, metavar="N",
        help="number of workers; one on each GPU or CPU of the cluster by default")  # fmt: skip
    add("--rows-per-part", type=int, default=1, help="rows of windows kept together (default 1)")
    add("--keep-parts", action="store_true", help="keep <map>.parts after the map is written")
    add("--no-quicklook", action="store_true", help="write no picture of the scene")
    add("--overwrite", action="store_true", help="search again although the map is finished")
    parser.add_argument(
        "opts", nargs=argparse.REMAINDER, metavar="KEY=VALUE", help="overrides of the config"
    )
    return parser


def read_radiometry(args: argparse.Namespace, configured: dict[str, Any] | None) -> Radiometry:
    """Combine the command line and the config into the radiometry of the scenes.

    Args:
        args: parsed arguments of the command line, which win over the config.
        configured: ``radiometry`` of the config's test mapper, or None.

    Returns:
        The rule.

    Raises:
        ValueError: the options contradict each other, or one is out of range.
    """
    # Both set the range, so the second one would silently win.
    if args.range is not None and args.percentile is not None:
        raise ValueError("--range and --percentile exclude each other; give one of them")

    # The command line wins over the config, option by option.
    values = dict(configured or {})
    values.pop("_target_", None)
    if args.bands is not None:
        values["bands"] = [int(band) if band.isdecimal() else band for band in args.bands]
    if args.range is not None:
        values.update(scaling="range", low=args.range[0], high=args.range[1])
    if args.percentile is not None:
        values.update(scaling="percentile", percentiles=args.percentile)
    given = {"gamma": args.gamma, "nodata": args.nodata}
    values.update({name: value for name, value in given.items() if value is not None})

    return Radiometry.from_dict(values)


def plan_outputs(scenes: list[SceneFiles], args: argparse.Namespace) -> list[Path]:
    """Choose the map of each scene, and check before any work that it can be written.

    Args:
        scenes: requested scenes.
        args: parsed arguments of the command line.

    Returns:
        Path of each map.

    Raises:
        ValueError: several scenes would go into one file, or a map cannot be written.
        OSError: the folder cannot be created.
    """
    output = Path(args.output)
    is_file = output.suffix.lower() in FORMATS and not output.is_dir()
    # Known before any search: the second scene would overwrite the map of the first.
    if is_file and len(scenes) > 1:
        raise ValueError(
            f"{len(scenes)} scenes cannot become the one file {output}; give a folder as --output"
        )

    make_output_folder(output.parent if is_file else output)
    maps = [output] if is_file else [output / f"{s.name}.{args.format}" for s in scenes]
    for path in maps:
        check_vector_output(path)
    return maps


def score_maps(
    scenes: list[SceneFiles], maps: list[Path], labels: list[str | Path | None], run: SceneRun
) -> str:
    """Score the maps that are written.

    Args:
        scenes: the scenes.
        maps: map of each scene.
        labels: labels of each scene, or None.
        run: settings of the search.

    Returns:
        The table of scores as text.

    Raises:
        ValueError: the labels or a map cannot be used.
        OSError: a file cannot be read.
    """
    args, scored = run.args, []
    for files, path, file in zip(scenes, maps, labels):
        if file is None or not path.is_file():
            print(f"{files.name} has no {'map' if file else 'labels'} and is not scored")
            continue

        with Raster(files.paths, crs=args.crs) as raster:
            area = None
            if args.area is not None:
                area = read_area(args.area, raster.georeference, (raster.height, raster.width))
            scored.append(
                read_scored_scene(
                    files.name,
                    path,
                    file,
                    raster,
                    run.class_names,
                    args.class_column or None,
                    area,
                    args.crowds,
                )
            )

    return format_scores(scored) if scored else "there is no map to score"


def check_channels(pixel_mean: Any, radiometry: Radiometry, image_format: str) -> None:
    """Check that scenes are read with as many bands as the model has channels.

    Args:
        pixel_mean: the config's ``model.pixel_mean``; what is no list is not checked.
        radiometry: rule of the scenes.
        image_format: channel order of the config's test mapper.

    Raises:
        ConfigError: the numbers differ.
        ValueError: the order does not fit the number of bands.
    """
    number = 3 if radiometry.bands is None else len(radiometry.bands)
    check_channel_order(image_format, number)
    if isinstance(pixel_mean, Sequence) and len(pixel_mean) != number:
        raise ConfigError(
            f"the model takes {len(pixel_mean)} bands (model.pixel_mean), but {number} are read; "
            "name the bands by --bands, or by the radiometry of the config's test mapper"
        )


def check_engine(args: argparse.Namespace, device: str, shard: tuple[int, int]) -> None:
    """Check the options of the engine.

    Args:
        args: parsed arguments of the command line.
        device: device of the model.
        shard: (rank, number of processes).

    Raises:
        ValueError: an option is out of range or belongs to another engine.
        ImportError: Ray is asked for and missing.
        ConnectionError: nothing listens at the address of the cluster.
    """
    if args.engine == "local":
        if args.ray_address is not None or args.ray_workers is not None:
            raise ValueError("--ray-address and --ray-workers need --engine ray")
        return

    import_ray()
    check_cluster(args.ray_address)
    if args.ray_workers is not None and args.ray_workers < 1:
        raise ValueError(f"--ray-workers must be at least 1, got {args.ray_workers}")
    if shard != (0, 1):
        raise ValueError("--engine ray shares the parts itself; unset RANK and WORLD_SIZE")
    if device not in ("auto", "cpu", "cuda"):
        raise ValueError(
            f"Ray gives each worker its own GPU, so --device is auto, cpu or cuda, not {device}"
        )


def prepare(args: argparse.Namespace) -> tuple[SceneRun, list[SceneFiles], list[Path]]:
    """Check everything that can be checked before the first window.

    Args:
        args: parsed arguments of the command line.

    Returns:
        How scenes are searched, the scenes, and the map of each.

    Raises:
        ValueError: the command line or the config cannot be used.
        OSError: a file is missing, or the output cannot be written.
        CheckpointError: the weights cannot be used.
    """
    parameters = read_parameters(args)
    if args.rows_per_part < 1:
        raise ValueError(f"--rows-per-part must be at least 1, got {args.rows_per_part}")

    shard = shard_from_environment()
    scenes = find_scenes(args.input, args.stack)
    cfg = read_model_config(args)
    device = args.device or cfg.train.get("device", "auto")
    check_engine(args, device, shard)

    # Outputs come before the weights, whose loading takes longest.
    radiometry = read_radiometry(args, read_test_mapper(cfg).get("radiometry"))
    maps = plan_outputs(scenes, args)
    image_format = read_test_mapper(cfg).get("image_format", "RGB")
    check_channels(cfg.model.get("pixel_mean"), radiometry, image_format)

    if args.engine == "ray":
        # The workers have the devices; this process only loads the model and hands it out.
        args.device = "cpu"
    detector, origin = build_image_detector(args, cfg)
    if args.window is None:
        parameters = read_parameters(args, 0.1, *detector.usual_windows)
    args.device = device
    names = class_names(args.classes, cfg)

    # Only what decides the detections is recorded: the same run gives the same bytes.
    kept = {key: origin[key] for key in ("config", "ema", "iteration", "commit")}
    weights = args.weights or cfg.train.init_checkpoint
    kept |= {"weights": Path(weights).name, "weights_sha256": file_digest(weights)[:16]}
    kept["overrides"] = list(args.opts)
    run = SceneRun(args, parameters, radiometry, detector, names, kept, shard)
    return run, scenes, maps


def prepare_labels(
    args: argparse.Namespace, scenes: list[SceneFiles], run: SceneRun
) -> list[str | Path | None] | None:
    """Find the labels of every scene before any work.

    Args:
        args: parsed arguments of the command line.
        scenes: the scenes.
        run: settings of the search.

    Returns:
        Label file of each scene; None without ``--labels``.

    Raises:
        ValueError: the number of label files differs from that of the scenes, the classes have
            no names, or a file cannot be read as labels of its scene.
        OSError: a file is missing.
    """
    if args.labels is None:
        return None
    if not run.class_names:
        raise ConfigError("scoring compares labels by the names of the classes; give --classes")

    labels = find_labels(args.labels[0] if len(args.labels) == 1 else args.labels, scenes)
    for files, file in zip(scenes, labels):
        if file is None:
            continue
        try:
            raster = Raster(files.paths, crs=args.crs)
        except (ValueError, OSError):
            continue  # the search lists scenes that cannot be read
        # A broken file would otherwise be noticed only after the search.
        with raster:
            read_labels(file, raster, args.class_column or None, crowds=args.crowds)
    return labels


def main(argv: list[str] | None = None) -> int:
    """Detect objects in scenes and write maps.

    Args:
        argv: command line without the program's name; None takes that of the process.

    Returns:
        The exit code, see the top of this file.
    """
    args = get_parser().parse_args(argv)
    try:
        run, scenes, maps = prepare(args)
        labels = prepare_labels(args, scenes, run)
    except (ValueError, OSError, ImportError, CheckpointError) as error:
        print(f"rsd2 scene: error: {error}", file=sys.stderr)
        return 2

    search = search_in_turn if args.engine == "local" else search_with_ray
    try:
        code = run_all(search(scenes, maps, run), len(scenes))
    except (RuntimeError, ConnectionError) as error:
        print(f"rsd2 scene: error: {error}", file=sys.stderr)
        return 2
    # After an interruption the maps are incomplete, and their scores would mislead.
    if labels is not None and code in (0, 1):
        try:
            print(score_maps(scenes, maps, labels, run))
        except (ValueError, OSError) as error:
            print(f"rsd2 scene: error: {error}", file=sys.stderr)
            return 2
    return code


def search_in_turn(
    scenes: Sequence[SceneFiles], maps: Sequence[Path], run: SceneRun
) -> Iterator[Outcome]:
    """Search scenes in this process; an unreadable one does not stop the others.

    Args:
        scenes: the scenes.
        maps: map of each scene.
        run: settings of the search.

    Yields:
        The outcome of each scene.
    """
    # A night's run over many scenes should not end at the first broken file.
    for files, path in zip(scenes, maps):
        try:
            yield Outcome(files.name, search_scene(files, path, run))
        except (ValueError, OSError) as error:
            yield Outcome(files.name, str(error), failed=True)


def search_with_ray(
    scenes: Sequence[SceneFiles], maps: Sequence[Path], run: SceneRun
) -> Iterator[Outcome]:
    """Search scenes by workers of a Ray cluster.

    Args:
        scenes: the scenes.
        maps: map of each scene.
        run: settings of the search; each worker gets a copy, with the model.

    Yields:
        The outcome of each scene.

    Raises:
        ImportError: Ray is missing.
        RuntimeError: a worker cannot start.
        OSError: there is no cluster at the address.
    """
    args = run.args
    with RayPool(SceneWorker(run), args.ray_workers, args.ray_address, args.device) as pool:
        print(f"{pool.num_workers} workers on {pool.device}")
        yield from search_by_workers(scenes, maps, pool, pool.num_workers)


def run_all(outcomes: Iterable[Outcome], number: int) -> int:
    """Print what becomes of the scenes.

    Args:
        outcomes: outcome of each scene, found while they are asked for.
        number: number of scenes.

    Returns:
        The exit code.
    """
    failed: list[str] = []
    try:
        for outcome in outcomes:
            if outcome.failed:
                failed.append(f"  {outcome.name}: {outcome.text}")
            else:
                # Not print: a bar may be there, which stays below the line.
                tqdm.write(outcome.text)
    except KeyboardInterrupt:
        print("interrupted; run the same command to continue", file=sys.stderr)
        return 130

    if failed:
        print(f"{len(failed)} of {number} scenes failed:", *failed, sep="\n", file=sys.stderr)
    return 0 if not failed else 1 if len(failed) < number else 2
