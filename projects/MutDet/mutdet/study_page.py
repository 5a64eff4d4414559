"""The page of the study: what happened, a map, pictures, scores, and what to do next.

Of a demo it is the first thing that a newcomer sees.
"""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.config import instantiate
from detectron2.data import DatasetCatalog, MetadataCatalog
from matplotlib.figure import Figure

from rsd2.analysis.page import Page
from rsd2.config import load_config, without_weight_files
from rsd2.data.drawing.boxes import class_color
from rsd2.evaluation.intervals import Interval
from rsd2.inference.drawing import draw_beside_truth
from rsd2.io.image_io import read_image
from rsd2.study import read_markers
from rsd2.study.comparison import Rows
from rsd2.study.report import format_number, row_label
from rsd2.weights.checkpoint import load_weights

from .label_statistics import SHEET
from .study_arms import BASELINE
from .study_map import SCORE_THRESHOLD, Harbour, read_harbour
from .study_settings import MutDetSettings

PAGE = "report.html"
PSEUDO_LABELS = "data/pseudo/synthetic_train"
"""Folder of the boxes with embeddings, where the configs of the pre-training look for it."""
NO_WEIGHTS = "weights/missing.txt"
"""File of the study's folder that says why there are no weights, if somebody asked for some."""
_TABLE_ROWS = 40  # a longer table is for a machine


def draw_runs(runs: Mapping[str, Path], count: int) -> list[np.ndarray]:
    """Draw held-out scenes with their labels, and with the detections of trained models.

    Args:
        runs: title -> folder of a fine-tuning.
        count: number of scenes, >= 1, evenly spread.

    Returns:
        A row of pictures, uint8 (H, W, 3) RGB, for each scene.
    """
    models = {}
    for title, run in runs.items():
        cfg = load_config(run / "config.yaml")
        model = instantiate(without_weight_files(cfg).model).eval()
        load_weights(model, run / "model_final.pth", ema=cfg.train.ema.enabled)
        models[title] = model

    records = DatasetCatalog.get("synthetic_val")
    places = np.linspace(0, len(records) - 1, min(count, len(records))).astype(int)
    sheet = draw_beside_truth(
        models,
        [records[place] for place in places],
        instantiate(cfg.dataloader.test.mapper),
        MetadataCatalog.get("synthetic_val").thing_classes,
        threshold=SCORE_THRESHOLD,
        columns=1 + len(models),
    )
    # A scene has a row of its own, and all rows are equally high.
    return np.split(sheet, len(places))


def write_page(settings: MutDetSettings, folder: Path) -> None:
    """Write the page of a finished study, whose scenes are registered.

    Args:
        settings: settings of the study.
        folder: output folder, which holds results.jsonl.
    """
    lines = (folder / "results.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    run = folder / settings.mapping_run
    best = next(row for row in rows if row["folder"] == settings.mapping_run)
    harbours = [read_harbour(folder, side) for side in settings.harbours]
    minutes = sum(one["cpu_seconds"] for one in read_markers(folder).values()) / 60
    classes = MetadataCatalog.get("synthetic_val").thing_classes

    end = ": from nothing to a map" if harbours else ""
    page = Page(f"Objects in overhead scenes{end}", "A report of rsd2.")
    page.lead(_headline(settings, rows, best, harbours))
    page.facts(
        [
            ("AP50 on held-out scenes", format_number(best["AP50"])),
            ("its 95 % interval", _interval(best, "AP50").bounds()),
            ("scenes to learn from", settings.train_images),
            *(("objects on the map", harbour.mapped) for harbour in harbours),
            ("CPU minutes in all", round(minutes, 1)),
        ]
    )

    for harbour in harbours:
        _add_map(page, harbour, classes)
    page.section(
        "What it finds",
        "Scenes that the detector has not seen: on the left the labels, on the right what it finds "
        f"with a score of {SCORE_THRESHOLD} and more.",
    )
    page.legend((name, class_color(index)) for index, name in enumerate(classes))
    pairs = draw_runs({"found": run}, settings.images)
    page.gallery(((pair, "") for pair in pairs), wide=True)

    _add_scores(page, rows)
    if settings.pretrains:
        page.section(
            "Boxes without labels",
            "The pre-training learns from boxes like these, which were proposed on the training "
            "scenes by their contrast alone.",
        )
        page.picture(read_image(folder / PSEUDO_LABELS / SHEET))
    _add_next_steps(page, run)
    _add_origin(page, settings, folder, best)
    page.write(folder / PAGE)


def _headline(
    settings: MutDetSettings,
    rows: Rows,
    best: Mapping[str, Any],
    harbours: Sequence[Harbour],
) -> str:
    """Say in a few sentences what happened."""
    origin = (
        "ImageNet weights of EfficientNet-Lite0"
        if settings.weights
        else "features that it had learned on crops of further generated scenes"
    )
    text = (
        f"On this machine rsd2 drew {settings.train_images:,} scenes with their labels, and from "
        f"{origin} trained a detector of rotated boxes on {_share(best)} in "
        f"{best['cpu_minutes']:.1f} CPU minutes. On {settings.val_images:,} other scenes its AP50 "
        f"is {format_number(best['AP50'])}."
    )

    # The smallest share shows what a pre-training is for.
    few = [row for row in rows if row["group"] == rows[0]["group"] and row["seed"] == best["seed"]]
    others = [row for row in few if row["arm"] != BASELINE]
    plain = next((row for row in few if row["arm"] == BASELINE), None)
    if plain is not None and others:
        scores = " and ".join(f"{format_number(row['AP50'])} ({row['arm']})" for row in others[:2])
        text += (
            f" From {_share(rows[0])}, one that first looked at all scenes without labels reaches "
            f"{scores}, and one that did not {format_number(plain['AP50'])}."
        )
    for harbour in harbours:
        text += (
            f" In a harbour of {harbour.metres:.0f} x {harbour.metres:.0f} m the first one then "
            f"found {harbour.found} of {harbour.objects} objects, and wrote the map below."
        )
    return text


def _share(row: Mapping[str, Any]) -> str:
    """Say from how many labels a model was trained."""
    return "all labels" if row["group"].startswith("100 %") else row["group"]


def _interval(row: Mapping[str, Any], name: str) -> Interval:
    """Read the interval of a score; JSON has null for what is undefined."""
    return Interval(*(math.nan if one is None else one for one in row["intervals"][name]))


def _add_map(page: Page, harbour: Harbour, classes: Sequence[str]) -> None:
    """Add the picture of a map, and links to its files."""
    page.section(
        "The map",
        f"A generated harbour of {harbour.side} x {harbour.side} pixels with a place on Earth. The "
        f"detector searched it in windows of the size of its training images: {harbour.found} of "
        f"{harbour.objects} objects are found with an IoU above 0.5, and "
        f"{harbour.mapped - harbour.found} of the {harbour.mapped} polygons are of something else, "
        "double or misplaced. Each has class, score, azimuth, length and width in metres, and its "
        "coordinates.",
    )
    page.picture(harbour.picture, f"The scene with the {harbour.mapped} polygons of the map.")
    page.legend((classes[index], class_color(index)) for index in harbour.classes)
    page.links(
        [
            ("the map, a GeoPackage that opens coloured in QGIS", harbour.map_file),
            ("the scene, a GeoTIFF", harbour.scene_file),
        ]
    )


def _add_scores(page: Page, rows: Rows) -> None:
    """Add the table of scores, the plots, and how to read both."""
    page.section(
        "Scores",
        "Average precision on held-out scenes after the last step, in percent, with the 95 % "
        "interval of another sample of scenes of the same kind. Another seed of the training moves "
        "a score as well, so differences inside the intervals say nothing.",
    )
    header = ["from", "labels", *("AP50", "AP75", "AP"), "steps", "CPU min", "its pre-training"]
    cells = []
    for row in rows[:_TABLE_ROWS]:
        scores = (
            f"{format_number(row[name])} ({_interval(row, name).bounds()})" for name in header[2:5]
        )
        stages = sum(row["stages_cpu_minutes"].values()) if row["stages_cpu_minutes"] else None
        start = "no pre-training" if row["arm"] == BASELINE else row["arm"]
        share = row["group"].removesuffix(" of the labels")
        cells.append((start, share, *scores, row["steps"], row["cpu_minutes"], stages))
    page.table(header, cells)
    if len(rows) > _TABLE_ROWS:
        page.paragraph(f"... and {len(rows) - _TABLE_ROWS} more in results.md.", dim=True)

    page.plot(_plot_scores(rows), "AP50 with its 95 % interval.")
    page.plot(_plot_losses(rows), "Loss of the trainings with labels.")


def _plot_scores(rows: Rows) -> Figure:
    """Draw AP50 as a point with its interval for each training."""
    figure = Figure(figsize=(5.2, 0.9 + 0.42 * len(rows)), layout="constrained")
    axis = figure.subplots()
    for place, row in enumerate(rows):
        value, low, high = _interval(row, "AP50")
        # An undefined score has no point.
        if not math.isnan(low):
            color = f"C{int(row['arm'] != BASELINE)}"
            axis.plot([low, high], [place, place], color=color, linewidth=3, alpha=0.4)
            axis.plot([value], [place], "o", color=color, markersize=8)
    axis.set_yticks(range(len(rows)), [row_label(row, rows) for row in rows])
    axis.set(xlabel="AP50, percent", ylim=(len(rows) - 0.5, -0.5))
    axis.grid(alpha=0.3, axis="x")
    return figure


def _plot_losses(rows: Rows) -> Figure:
    """Draw the losses of the trainings over their steps."""
    figure = Figure(figsize=(5.2, 3.2), layout="constrained")
    axis = figure.subplots()
    for row in rows:
        axis.plot(*zip(*row["course"]), label=row_label(row, rows), linewidth=1.5)
    axis.set(xlabel="steps", ylabel="loss", yscale="log")
    axis.yaxis.set_minor_formatter("{x:.0f}")
    axis.grid(alpha=0.3, which="both")
    if len(rows) <= 8:
        axis.legend(fontsize="small")
    return figure


def _add_next_steps(page: Page, run: Path) -> None:
    """Say what a reader can do now, as commands to copy."""
    # As the reader stands where the study was started, that is how they name the folder.
    here = run.relative_to(Path.cwd()) if run.is_relative_to(Path.cwd()) else run
    model = (
        f"--config-file {shlex.quote(str(here / 'config.yaml'))} "
        f"--weights {shlex.quote(str(here / 'model_final.pth'))} --ema"
    )
    page.section("What to do next", "Use this detector on an image of yours:")
    page.code(f"rsd2 predict {model} \\\n    --input my_image.png --output my_predictions")
    page.paragraph("Map a GeoTIFF, a COG or a JPEG 2000 of any size:")
    page.code(
        f"rsd2 scene {model} \\\n    --input my_scene.tif --output my_map.gpkg --window 128 "
        f"--overlap 48 --score-threshold {SCORE_THRESHOLD}"
    )
    page.paragraph(
        "It knows drawn planes, ships, vehicles, tanks, harbours and bridges. For real ones, train "
        "on images and labels of your own. First look for what is wrong in them:"
    )
    page.code("rsd2 doctor my_data/labelTxt::my_data/images")
    page.paragraph(
        'Then write a config of ten lines and train: the section "Your own data" of README.md, or '
        "the page of that name in the documentation, shows it from the first file to the last "
        "command."
    )


def _add_origin(
    page: Page, settings: MutDetSettings, folder: Path, best: Mapping[str, Any]
) -> None:
    """Say where the weights came from, what was run, and where its files are."""
    page.section("How it was made", _origin_of_weights(settings, folder))
    hardware = ", ".join(f"{key} {value}" for key, value in best["hardware"].items())
    versions = ", ".join(f"{key} {value}" for key, value in best["versions"].items())
    page.table(
        ["", ""],
        [
            ("commit", best["commit"]),
            ("config", best["config"]),
            ("seed", str(best["seed"])),
            ("machine", hardware),
            ("versions", versions),
        ],
    )
    steps = [(name, one["cpu_seconds"], one["wall_seconds"]) for name, one in sorted(
        read_markers(folder).items(), key=lambda item: -item[1]["cpu_seconds"]
    )]  # fmt: skip
    page.table(
        ["step", "CPU seconds", "seconds on the clock"], steps, "Cost; two steps run at once."
    )
    page.paragraph("results.md has every number of this page and more; jobs/ has the commands.")
    names = [name for name in ("results.md", "results.jsonl") if (folder / name).is_file()]
    page.links((name, name) for name in names)


def _origin_of_weights(settings: MutDetSettings, folder: Path) -> str:
    """Say what the backbones started from, and why."""
    if settings.weights:
        text = (
            "Backbone: EfficientNet-Lite0 with weights of ImageNet (Apache-2.0), which rsd2 "
            "get-weights took from a package of the package index, whose hash it checked. Its "
            "first two maps stay fixed."
        )
        embeddings = " The embeddings of the pre-training come from it, too."
        return text + embeddings if settings.pretrains else text

    reason = folder / NO_WEIGHTS
    asked = reason.read_text(encoding="utf-8").strip() if reason.is_file() else ""
    why = f"The weights of ImageNet could not be had: {asked}. " if asked else ""
    return (
        f"{why}Backbone: a small ResNet that first learned to tell apart crops of "
        f"{settings.embedder_scenes} further generated scenes, without labels. Nothing was loaded "
        "from anywhere."
    )
