"""Turn a finished run into pictures and a table, or its predictions into a page of errors.

    python tools/report_run.py --run output/demo/train --output output/demo --weights ema
    python tools/report_run.py --predictions output/run/inference --output output/run/errors
    python tools/report_run.py --predictions output/b/inference --against output/a/inference \
        --output output/b/errors

The first reads config.yaml, metrics.json and results.json of the run
(``tools/lazyconfig_train_net.py``) and writes loss_curve.png, predictions.png and results.md. The
folder of an ``--eval-only`` has no losses to draw; its pictures are of the weights it scored, from
the score of the greatest F1 on. The others read what an evaluator of boxes wrote and write
error_report.html and error_report.json; no model is loaded. With --intervals results.md also has
the scores with 95 % intervals, for which whole images, or frames of videos, are drawn anew.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from detectron2.config import instantiate
from detectron2.data import DatasetCatalog, MetadataCatalog
from matplotlib.figure import Figure
from omegaconf import DictConfig

from rsd2.analysis.error_input import AnalysisError
from rsd2.analysis.error_report import score_of_best_f1, write_error_report
from rsd2.config import ConfigError, load_config, without_weight_files
from rsd2.data.datasets.builtin import register_builtin
from rsd2.engine import select_device
from rsd2.evaluation.dota import SUBMISSION_FILE
from rsd2.evaluation.evaluator import RESULTS_FILE
from rsd2.evaluation.intervals import box_interval_table, interval_table
from rsd2.inference.drawing import draw_beside_truth
from rsd2.io.figures import save_figure
from rsd2.io.files import make_output_folder, write_atomically
from rsd2.io.program import print_error
from rsd2.weights.checkpoint import load_weights
from rsd2.weights.errors import CheckpointError

DRAWN_FROM = 0.3
"""Lowest score drawn where no evaluation says a better one."""


class ReportError(RuntimeError):
    """A run without something that its report needs; the message names it."""


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """Read the metrics of a training.

    Args:
        path: path of metrics.json, one JSON object per line; a truncated last line is dropped.

    Returns:
        The objects.

    Raises:
        ReportError: the file is missing or a line in the middle is broken.
    """
    if not path.is_file():
        raise ReportError(f"{path} is missing: give --run the train.output_dir of a training")
    lines, records = path.read_text().splitlines(), []
    for number, line in enumerate(lines, start=1):
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError as error:
            # A killed training leaves half a line at the end, but nowhere else.
            if number < len(lines):
                raise ReportError(f"{path}:{number}: not JSON ({error})") from error

    return records


def plot_losses(records: list[dict[str, Any]], path: Path) -> None:
    """Draw total loss, the last layer's losses and the learning rate over the iterations.

    Args:
        records: records as `read_json_lines` returns them; a training that was resumed may repeat
            iterations.
        path: PNG file to write.
    """
    # The last record of an iteration wins: a resumed training repeats some of them.
    by_iteration = {r["iteration"]: r for r in records if "total_loss" in r}
    if not by_iteration:
        raise ReportError("metrics.json holds no total_loss; was anything trained?")
    iterations = sorted(by_iteration)
    figure = Figure(figsize=(14, 4), layout="constrained")
    axes = figure.subplots(1, 3)

    def draw(axis: Any, key: str) -> None:
        points = [(i, by_iteration[i][key]) for i in iterations if key in by_iteration[i]]
        axis.plot(*zip(*points), label=key)

    draw(axes[0], "total_loss")
    names = sorted(k for k in by_iteration[iterations[0]] if k.startswith("loss_"))
    # DETR-like heads log a loss for each layer; names without a number are the last layer's.
    for name in [n for n in names if n.count("_") == 1] or names:
        draw(axes[1], name)
    draw(axes[2], "lr")
    for axis, title in zip(axes, ("total loss", "losses of the last layer", "learning rate")):
        axis.set(title=title, xlabel="iteration")
        axis.grid(alpha=0.3)
    # Losses fall by orders of magnitude, which a linear axis would flatten.
    axes[0].set_yscale("log")
    axes[1].legend()
    save_figure(figure, path)


def test_set_of(cfg: DictConfig) -> str:
    """Name the test set of a run, the first one if there are several.

    Args:
        cfg: config of the run.

    Returns:
        Its name, which is registered.

    Raises:
        ReportError: the test set is not built in.
    """
    names = cfg.dataloader.test.dataset.names
    name = names if isinstance(names, str) else names[0]
    # A saved config names datasets, but does not run the code that registers others.
    if name not in DatasetCatalog.list():
        raise ReportError(
            f"dataset {name} is not registered: config.yaml registers nothing, so pictures are "
            "drawn of built-in datasets only; use tools/predict.py for others"
        )
    return name


def draw_predictions(
    cfg: Any, model: torch.nn.Module, path: Path, count: int, threshold: float
) -> None:
    """Draw images with their ground truth beside the same images with predictions.

    Args:
        cfg: config of the run.
        model: model in eval mode.
        path: PNG file to write.
        count: images, evenly spread over the test set.
        threshold: lowest score drawn.

    Raises:
        ReportError: the test set is not built in, or the picture cannot be written.
    """
    name = test_set_of(cfg)
    records, classes = DatasetCatalog.get(name), MetadataCatalog.get(name).thing_classes
    # Evenly spread, because neighbours in a list often show one place.
    chosen = [
        records[i] for i in np.linspace(0, len(records) - 1, min(count, len(records))).astype(int)
    ]
    sheet = draw_beside_truth(
        {"predicted": model},
        chosen,
        instantiate(cfg.dataloader.test.mapper),
        classes,
        threshold=threshold,
        columns=4,
    )
    if not cv2.imwrite(str(path), sheet[..., ::-1]):
        raise ReportError(f"{path} cannot be written")


def intervals_of(cfg: DictConfig, run: Path, weights: str) -> str:
    """Score the detections of a run's last evaluation again, with intervals.

    Args:
        cfg: config of the run, whose test set names the labels.
        run: folder of the run.
        weights: "model" or "ema".

    Returns:
        See `interval_table`, and `box_interval_table` for upright boxes.

    Raises:
        ReportError: there is no file of detections, or the test set is not built in.
    """
    folder = boxes_folder(run, weights)
    name, boxes, zips = test_set_of(cfg), folder / RESULTS_FILE, folder / SUBMISSION_FILE
    if boxes.is_file():
        config = cfg.copy()
        config.dataloader.evaluator.output_dir = None
        return box_interval_table(instantiate(config.dataloader.evaluator), boxes)
    if not zips.is_file():
        raise ReportError(f"{zips} is missing: --intervals needs an evaluation that writes boxes")
    # Windows were merged, so their labels are those of the whole images.
    name = MetadataCatalog.get(name).get("source_dataset", None) or name
    return interval_table(zips, DatasetCatalog.get(name), MetadataCatalog.get(name).thing_classes)


def write_table(results: dict[str, Any], path: Path, intervals: str = "") -> str:
    """Write the scores as Markdown, with everything that is needed to repeat them.

    Args:
        results: content of results.json.
        path: file to write.
        intervals: further table, or nothing.

    Returns:
        The text.
    """
    columns = list(results["results"])
    keys = list(dict.fromkeys(k for column in columns for k in results["results"][column]))

    def cell(value: float | None) -> str:
        # A metric without ground truth is NaN, for example of a class that no image shows.
        return "-" if value is None or math.isnan(value) else f"{value:.1f}"

    lines = [
        "| metric | " + " | ".join(columns) + " |",
        "|---" * (len(columns) + 1) + "|",
    ]
    for key in keys:
        values = [cell(results["results"][column].get(key)) for column in columns]
        lines.append(f"| {key} | " + " | ".join(values) + " |")
    lines += ["", intervals] if intervals else [""]
    for key, value in results.items():
        if key != "results":
            text = " ".join(map(str, value)) if isinstance(value, list) else value
            lines.append(f"- {key}: {text}")

    text = "\n".join(lines) + "\n"
    write_atomically(path, text)
    return text


def main(argv: list[str] | None = None) -> int:
    """Run from the command line.

    Args:
        argv: arguments; None takes those of the process.

    Returns:
        0 if done; 1 if something is missing, with a message on stderr.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    wanted = parser.add_argument_group("one of the two, or both")
    wanted.add_argument(
        "--run", type=Path, help="train.output_dir of a training, or of an --eval-only"
    )
    wanted.add_argument(
        "--predictions",
        type=Path,
        help="folder of an evaluator, a Task1.zip, or a file of COCO's results: writes the page of "
        "errors",
    )
    parser.add_argument("--against", type=Path, help="predictions of a run to compare with")
    parser.add_argument("--dataset", help="dataset of --predictions (default: as evaluated)")
    parser.add_argument(
        "--iou", type=float, default=0.5, help="IoU above which an object is found (0.5)"
    )
    parser.add_argument("--results", type=Path, help="results.json (default: of the run)")
    parser.add_argument("--output", type=Path, required=True, help="folder for the report")
    parser.add_argument("--weights", choices=("model", "ema"), default="model")
    parser.add_argument("--images", type=int, default=12, help="images to draw (default 12)")
    parser.add_argument(
        "--score-threshold",
        type=float,
        help="lowest score drawn (that of the greatest F1 of the evaluated boxes; else 0.3)",
    )
    parser.add_argument(
        "--intervals", action="store_true", help="add 95 %% intervals, from what inference/ holds"
    )
    args = parser.parse_args(argv)
    if args.run is None and args.predictions is None:
        parser.error("give --run, --predictions, or both")

    register_builtin()
    try:
        if args.predictions is not None:
            page = write_error_report(
                args.predictions,
                args.output,
                dataset=args.dataset,
                against=args.against,
                iou_threshold=args.iou,
                num_images=args.images,
            )
            print(f"page of errors written to {page}")
        if args.run is not None:
            report(args)
    except (AnalysisError, ReportError, CheckpointError, ConfigError, OSError) as problem:
        print_error(problem)
        return 1

    return 0


def report(args: argparse.Namespace) -> None:
    """Write the report that the arguments ask for."""
    make_output_folder(args.output)
    results_file = args.results or args.run / "results.json"
    if not results_file.is_file():
        raise ReportError(f"{results_file} is missing: evaluate the run first")
    try:
        results = json.loads(results_file.read_text())
    except json.JSONDecodeError as error:
        raise ReportError(f"{results_file} is not JSON ({error}); evaluate again") from error
    if not isinstance(results, dict) or not isinstance(results.get("results"), dict):
        raise ReportError(f"{results_file} holds no results of an evaluation; evaluate again")

    # An evaluation of given weights names them, and has no losses if its folder is its own.
    evaluated, metrics = results.get("checkpoint"), args.run / "metrics.json"
    if evaluated is None or metrics.is_file():
        plot_losses(read_json_lines(metrics), args.output / "loss_curve.png")

    cfg = load_config(args.run / "config.yaml")
    table = intervals_of(cfg, args.run, args.weights) if args.intervals else ""
    print(write_table(results, args.output / "results.md", table))
    model = instantiate(without_weight_files(cfg).model).to(select_device(cfg.train.device)).eval()
    load_weights(model, weights_of(args.run, evaluated), ema=args.weights == "ema")
    threshold = args.score_threshold
    if threshold is None:
        threshold = drawn_from(cfg, args.run, args.weights)
    draw_predictions(cfg, model, args.output / "predictions.png", args.images, threshold)
    print(f"report written to {args.output}; its pictures show scores of {threshold:.2f} and more")


def drawn_from(cfg: DictConfig, run: Path, weights: str) -> float:
    """Choose the lowest score to draw, which differs from detector to detector.

    Args:
        cfg: config of the run, whose test set names the labels.
        run: folder of the run.
        weights: "model" or "ema".

    Returns:
        The score with the greatest F1 of the run's last evaluation; `DRAWN_FROM` where its boxes
        cannot be judged, with the reason on stdout.
    """
    try:
        return score_of_best_f1(boxes_folder(run, weights), dataset=test_set_of(cfg))
    except AnalysisError as problem:
        print(f"the score of the best F1 is not known: {problem}")
        return DRAWN_FROM


def boxes_folder(run: Path, weights: str) -> Path:
    """Name the folder with the boxes of a run's last evaluation.

    Args:
        run: folder of the run.
        weights: "model" or "ema".

    Returns:
        The folder, which need not be there.
    """
    return run / "inference" / ("ema" if weights == "ema" else "")


def weights_of(run: Path, evaluated: str | None) -> Path:
    """Find the weights whose scores a run's results.json holds.

    Args:
        run: folder of the run.
        evaluated: the checkpoint that results.json names; None if it is of a training.

    Returns:
        The checkpoint. If it is no longer where it was evaluated, the one of its name in the run's
        folder, which may have been moved with it.
    """
    if evaluated is not None and Path(evaluated).is_file():
        return Path(evaluated)
    return run / (Path(evaluated).name if evaluated else "model_final.pth")
