"""The pages of a finished study: results.jsonl, results.md, pictures, and report.html with all."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from detectron2.config import instantiate
from detectron2.data import DatasetCatalog, MetadataCatalog

from rsd2.config import load_config
from rsd2.data.datasets import register_all_synthetic
from rsd2.data.formats.pseudo_labels import read_folder
from rsd2.inference.drawing import draw_beside_truth
from rsd2.io.files import write_atomically
from rsd2.study import write_rows
from rsd2.study.job_queue import read_markers
from rsd2.weights.checkpoint import load_weights

from .label_recall import measure_recall, truth_of_dataset
from .label_statistics import SHEET
from .study import PSEUDO_LABELS, StudySettings, run_name
from .study_report import (
    format_table,
    make_row,
    plot_study,
    read_last,
    read_losses,
)
from .telemetry import describe_embeddings

_SCORE_THRESHOLD = 0.3
_NAMES = {"none": "none", "detreg": "DETReg", "mutdet": "MutDet"}
_PICTURES = {
    "curves.png": "Scores on held-out scenes, and the losses of the fine-tunings",
    "detections.png": "Held-out scenes: labels, and what each arm finds",
    f"{PSEUDO_LABELS}/{SHEET}": "Training scenes with the pseudo-boxes of the pre-training",
}


def write_pages(settings: StudySettings, folder: Path, images: int = 8) -> str:
    """Write rows, table, plot, pictures and the page that shows them.

    Args:
        settings: of the study.
        folder: that its jobs filled; gets the pages.
        images: held-out scenes that are drawn; >= 1.

    Returns:
        the table with what stands under it, as Markdown.

    Raises:
        StudyReportError: what a job should have left is missing.
    """
    register_all_synthetic(folder / "data")
    markers = read_markers(folder)
    rows, curves = [], {}
    for fraction in sorted(settings.fractions):
        for arm in settings.arms:
            name = run_name(arm, fraction)
            stages = {k: markers[k] for k in (f"pretrain_{arm}",) if k in markers}
            run = folder / "finetune" / name
            marker = markers[f"finetune_{name}"]
            rows.append(make_row(run, marker, arm=_NAMES[arm], fraction=fraction, stages=stages))
            curves[f"{_NAMES[arm]}, {100 * fraction:g} %"] = read_losses(run)
    telemetry = _telemetry(settings, folder, markers)
    write_rows([{**row, "telemetry": telemetry} for row in rows], folder / "results.jsonl")
    table = format_table(rows, telemetry)
    write_atomically(folder / "results.md", table.encode())
    plot_study(rows, curves, folder / "curves.png")
    _save(_draw_detections(settings, folder, images), folder / "detections.png")
    write_atomically(folder / "report.html", _page(table).encode())
    return table


def _telemetry(
    settings: StudySettings, folder: Path, markers: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """What the pre-trainings had to learn from, how they went, and what all arms share."""
    name = "synthetic_train"
    truth = truth_of_dataset(DatasetCatalog.get(name), MetadataCatalog.get(name).thing_classes)
    records = read_folder(folder / PSEUDO_LABELS)[0]
    boxes = measure_recall(records, truth)
    result: dict[str, Any] = {
        "pseudo-boxes": {
            "per image": boxes["boxes_per_image"],
            "recall at IoU 0.5": boxes["recall"]["all"]["0.5"],
            "precision": boxes["precision"],
        },
        "embeddings": describe_embeddings(records, truth),
    }
    for arm in settings.arms:
        run = folder / "pretrain" / arm
        if arm != "none":
            iterations, losses = read_losses(run)
            result[f"pre-training by {_NAMES[arm]}"] = {
                "steps": int(iterations[-1]) + 1,
                "total_loss": float(losses[iterations >= 0.8 * iterations[-1]].mean()),
                **read_last(run, ("retrieval", "cosine")),
            }
    shared = ("embedder", "pseudo_boxes", "embeddings")
    result["CPU minutes of what the arms share"] = {
        name: markers[name]["cpu_seconds"] / 60 for name in shared if name in markers
    }
    return result


def _spread(records: Sequence[Any], count: int) -> list[Any]:
    """``count`` elements, evenly spread."""
    places = np.linspace(0, len(records) - 1, min(count, len(records))).astype(int)
    return [records[place] for place in places]


def _draw_detections(settings: StudySettings, folder: Path, count: int) -> np.ndarray:
    """Truth and the detections of every arm that was fine-tuned on the smallest share."""
    fraction, models = min(settings.fractions), {}
    for arm in settings.arms:
        run = folder / "finetune" / run_name(arm, fraction)
        cfg = load_config(run / "config.yaml")
        model = instantiate(cfg.model).eval()
        load_weights(model, run / "model_final.pth", ema=cfg.train.ema.enabled)
        models[f"{_NAMES[arm]} {100 * fraction:g} %"] = model
    return draw_beside_truth(
        models,
        _spread(DatasetCatalog.get("synthetic_val"), count),
        instantiate(cfg.dataloader.test.mapper),
        MetadataCatalog.get("synthetic_val").thing_classes,
        threshold=_SCORE_THRESHOLD,
        columns=1 + len(models),
    )


def _save(picture: np.ndarray, path: Path) -> None:
    written, data = cv2.imencode(".png", picture[..., ::-1])
    if not written:
        raise OSError(f"{path} cannot be encoded")
    write_atomically(path, data.tobytes())


def _page(table: str) -> str:
    """One HTML page with the table and the pictures beside it."""
    rows = [line for line in table.splitlines() if line.startswith("|")]
    cells = [[html.escape(cell.strip()) for cell in row.strip("|").split("|")] for row in rows]
    body = ["<table>", f"<tr><th>{'</th><th>'.join(cells[0])}</th></tr>"]
    body += [f"<tr><td>{'</td><td>'.join(row)}</td></tr>" for row in cells[2:]]
    notes = [line.removeprefix("- ") for line in table.splitlines() if line.startswith("- ")]
    body += ["</table>", "<ul>", *(f"<li>{html.escape(note)}</li>" for note in notes), "</ul>"]
    for name, caption in _PICTURES.items():
        body.append(f'<figure><img src="{name}"><figcaption>{caption}.</figcaption></figure>')
    style = (
        "body{font-family:sans-serif;max-width:100em;margin:2em} img{max-width:100%}"
        "td,th{padding:.2em 1em;text-align:right;border-bottom:1px solid #ccc}"
        "td:first-child{text-align:left} figure{margin:2em 0}"
    )
    head = (
        f"<meta charset=utf-8><title>Pre-training on generated scenes</title><style>{style}</style>"
    )
    return "\n".join(
        ["<!doctype html>", head, "<h1>Pre-training on generated scenes</h1>", *body, ""]
    )
