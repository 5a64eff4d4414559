"""Examine data sets before a model is trained with them: labels, image files, leaks, sizes.

    python tools/doctor.py ships_train ships_val --output doctor
    python tools/doctor.py data/ships data/more.json::data/images --classes ship plane
    python tools/doctor.py --train ships_train --test ships_val --config-file my_config.py

A data set is the name of a registered one; a folder that holds ``images`` and labels of any format
that ``rsd2 convert-labels`` knows; or LABELS::IMAGES. ``--train`` and ``--test`` also search the
test sets for what the training sets show. ``--weights`` compares the classes of a checkpoint with
those of the data, ``--config-file`` the queries of its model with the objects of a window.

The command writes doctor.html, with pictures, and doctor.json. Exit code 0: no findings. 1: there
are findings; notes and kinds named with ``--ignore`` do not count. 2: a data set could not be
examined. docs/doctor.md says what each finding means and what to do.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from tqdm import tqdm

from rsd2.analysis.doctor import Examination, ModelLimits, examine
from rsd2.analysis.doctor_data import read_data_set
from rsd2.analysis.doctor_images import quiet
from rsd2.analysis.doctor_page import make_page
from rsd2.analysis.findings import NOTES, OWN_REMEDIES
from rsd2.analysis.pictures import DataSet, Picture
from rsd2.config import load_config
from rsd2.data.datasets.builtin import register_builtin
from rsd2.data.formats.label_report import REMEDIES
from rsd2.data.formats.registry import LABEL_FORMATS
from rsd2.engine.preflight import classes_of, dataset_names
from rsd2.geo.raster import Raster
from rsd2.io.files import make_output_folder, write_atomically
from rsd2.io.folder_run import run_command
from rsd2.weights.checkpoint import load_checkpoint

_EXAMPLES = 3


def get_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("sets", nargs="*", metavar="SET", help="data sets to examine one by one")
    add("--train", nargs="+", default=[], metavar="SET", help="training sets")
    add("--test", nargs="+", default=[], metavar="SET", help="sets that must show nothing of them")
    add(
        "--format",
        default="auto",
        choices=["auto", *LABEL_FORMATS],
        metavar="FORMAT",
        help="format of the labels of sets that are not registered",
    )
    add("--classes", nargs="+", default=[], metavar="NAME", help="their class list")
    add("--config-file", metavar="FILE", help="config of the model, .py or saved .yaml")
    add("--weights", metavar="FILE", help="checkpoint whose classes are compared with the data")
    add("--window", type=int, default=1024, help="side of the windows in use, pixels (1024)")
    add("--overlap", type=int, default=200, help="overlap of the windows, pixels (200)")
    add("--gsd", type=float, metavar="METRES", help="side of a pixel, where no file states it")
    add("--ignore", nargs="+", default=[], metavar="KIND", help="findings that do not count")
    add("--output", type=Path, default=Path("doctor"), metavar="DIR", help="folder of the report")
    add("--num-workers", type=int, default=2, help="processes that decode images (2)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool.

    Args:
        argv: arguments of the command; None takes those of the process.

    Returns:
        0 without findings, 1 with findings, 2 if a data set cannot be examined, 130 if interrupted.
    """
    args = get_parser().parse_args(argv)
    found: list[int] = []
    failed = run_command(lambda: found.append(_run(args)))
    return failed or int(found[0] > 0)


def _run(args: argparse.Namespace) -> int:
    """Examine, write the report, and return the number of findings that count."""
    _check_arguments(args)
    register_builtin()
    limits = _read_limits(args)
    make_output_folder(args.output)

    # What readers would log is in the report, with pictures.
    with quiet():
        train, test = (
            [_read(source, args) for source in sources]
            for sources in ([*args.sets, *args.train], args.test)
        )
    result = examine(train, test, limits=limits, num_workers=args.num_workers)

    content = json.dumps(result.as_dict(args.ignore), indent=1, ensure_ascii=False)
    write_atomically(args.output / "doctor.json", content + "\n")
    make_page(result, args.ignore).write(args.output / "doctor.html")

    print(_summary(result, args.ignore))
    print(f"written: {args.output / 'doctor.html'} and doctor.json beside it")
    return result.findings.count(args.ignore)


def _check_arguments(args: argparse.Namespace) -> None:
    """Refuse what can be judged before anything is read."""
    if not args.sets and not args.train:
        raise ValueError("name a data set: a registered name, a folder, or LABELS::IMAGES")
    if bool(args.train) != bool(args.test) or (args.sets and args.train):
        raise ValueError("give data sets alone, or both --train and --test to compare them")
    if not 0 <= args.overlap < args.window:
        raise ValueError(f"--overlap must be in [0, {args.window}), got {args.overlap}")
    if args.gsd is not None and not args.gsd > 0:
        raise ValueError(f"--gsd must be positive, got {args.gsd}")

    unknown = set(args.ignore) - set(OWN_REMEDIES) - set(REMEDIES) - NOTES
    if unknown:
        raise ValueError(
            f"--ignore: there are no findings {', '.join(sorted(unknown))}; known are "
            f"{', '.join(sorted({*OWN_REMEDIES, *REMEDIES}))}"
        )


def _read(source: str, args: argparse.Namespace) -> DataSet:
    data = read_data_set(source, format=args.format, classes=args.classes)
    scenes: dict[tuple[str, ...], float | None] = {}

    def with_metres(picture: Picture) -> Picture:
        if picture.raster is not None:
            paths = tuple(picture.raster["paths"])
            if paths not in scenes:
                scenes[paths] = _metres_of(picture.raster)
            return replace(picture, metres=scenes[paths] or args.gsd)
        return replace(picture, metres=picture.metres or args.gsd)

    data.pictures = [with_metres(p) for p in tqdm(data.pictures, "pixel sizes", delay=2)]
    return data


def _metres_of(raster: Any) -> float | None:
    """Return the side of a pixel of a scene as models see it, on the ground."""
    with Raster(raster["paths"], crs=raster["crs"]) as scene:
        size, grid = scene.pixel_size, raster["grid"]
        if size is None:
            return None
        # The mean of both sides, enlarged or shrunk as the scene is.
        scale = grid["width"] / grid["scene_width"]
        return (size[0] + size[1]) / 2 / scale


def _read_limits(args: argparse.Namespace) -> ModelLimits:
    """Return what config and checkpoint say about the model."""
    path = args.config_file
    beside = Path(args.weights).with_name("config.yaml") if args.weights else None
    if path is None and beside is not None and beside.is_file():
        path = beside
    cfg = None if path is None else load_config(path)

    classes: tuple[str, ...] = ()
    if args.weights:
        # A training of this project records its classes; other checkpoints know numbers alone.
        trainer = load_checkpoint(args.weights).get("trainer") or {}
        recorded = dict(trainer.get("settings") or {}).get("data.classes", "")
        classes = tuple(recorded.split(", ")) if recorded else _classes_of_config(cfg)
        if not classes:
            raise ValueError(
                f"{args.weights} does not record its classes, and no config names a registered "
                "data set that has them; pass --config-file with the config of its training"
            )

    queries = None if cfg is None else _find_queries(cfg.model)
    return ModelLimits(args.window, args.overlap, queries, classes, args.weights or "")


def _classes_of_config(cfg: DictConfig | None) -> tuple[str, ...]:
    for name in [] if cfg is None else dataset_names(cfg, "train") + dataset_names(cfg, "test"):
        classes = classes_of(name)
        if classes:
            return tuple(classes)
    return ()


def _find_queries(node: DictConfig) -> int | None:
    """Find the number of queries of a model, which pre-training models hold a level deeper."""
    if isinstance(node.get("num_queries"), int):
        return int(node["num_queries"])
    inner = node.get("detector")
    return _find_queries(inner) if isinstance(inner, DictConfig) else None


def _summary(result: Examination, ignored: Sequence[str]) -> str:
    """Describe the findings in a few lines."""
    lines = []
    for data in result.sets:
        facts = result.facts[data.name]
        lines.append(f"{data.name}: {facts['images']} images, {facts['objects']} objects")
    for kind, number in sorted(result.findings.counts.items()):
        fate = " (a note)" if kind in NOTES else " (ignored)" if kind in ignored else ""
        lines.append(f"  {kind}: {number}{fate}")
        first = result.findings.first.get(kind, [])[:_EXAMPLES]
        lines += [f"    {one.where}: {one.message}" for one in first]
        if number > _EXAMPLES:
            lines.append(f"    ... and {number - _EXAMPLES} more")
    return "\n".join([*lines, f"{result.findings.count(ignored)} findings"])
