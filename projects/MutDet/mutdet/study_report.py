"""Report of the study: scores, quality of the pre-training's labels, pictures, one page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog

from rsd2.data.datasets.builtin import register_all_small, register_all_synthetic
from rsd2.data.formats.pseudo_labels import read_folder
from rsd2.evaluation.dota import SUBMISSION_FILE
from rsd2.evaluation.intervals import Interval, score_intervals
from rsd2.io.files import write_atomically
from rsd2.study import StudyReport, StudyRun, read_markers, write_report
from rsd2.study.comparison import last_fifth
from rsd2.study.report import read_course, read_records, read_results

from .label_recall import measure_recall, truth_of_dataset
from .measure_pretraining import METRICS
from .real_images import TEST
from .study_arms import ARMS, BASELINE
from .study_comparison import compare, compare_by_image
from .study_page import PAGE, PSEUDO_LABELS, draw_runs, write_page
from .study_settings import MutDetSettings
from .telemetry import describe_embeddings

REPORT = StudyReport(
    metrics={"AP50": "AP50", "AP75": "AP75", "AP": "AP"},
    baseline=BASELINE,
    caption="Held-out scenes after the fine-tuning.",
    course="total_loss",
    course_is_loss=True,
    flat=3.0,
)
SWEEP_REPORT = StudyReport(
    metrics=METRICS,
    baseline=ARMS["mutdet"].title,
    caption="Share of predictions whose own object is the nearest of its image, and the cosine of "
    "different targets of an image, on held-out scenes after the pre-training.",
    course="total_loss",
    # Beside the report of a study in the same folder, which shares the pre-trainings.
    files=("sweep.jsonl", "sweep.md", "sweep.png"),
)
REAL_REPORT = replace(REPORT, caption="HRSC2016's test images after the fine-tuning.")
_SHARED = ("embedder", "images", "pseudo_boxes", "embeddings")


def write_pages(settings: MutDetSettings, runs: Sequence[StudyRun], folder: Path) -> str:
    """Write the report, pictures, and the page that shows them.

    Args:
        settings: settings of the study.
        runs: fine-tunings of the study.
        folder: output folder of the study, where the pages are written.

    Returns:
        The text of the report, and the path of the page.

    Raises:
        StudyReportError: a result of a job is missing.
    """
    register_all_synthetic(folder / "data")
    telemetry = _telemetry(settings, runs, folder)
    report = replace(
        REPORT,
        details=lambda folder, run: {
            "folder": run.folder,
            "intervals": _intervals(folder, run),
            "telemetry": telemetry,
        },
        columns={
            f"{name}, 95 % interval": lambda row, name=name: Interval(
                *row["intervals"][name]
            ).bounds()
            for name in REPORT.metrics
        },
        appendix=lambda rows: [
            *compare(rows, REPORT.metrics),
            *(f"- {name}: {_plain(value)}" for name, value in telemetry.items()),
        ],
    )
    text = write_report(report, runs, folder)

    picture = _draw_detections(runs, folder, settings.images)
    # OpenCV writes BGR.
    written, data = cv2.imencode(".png", picture[..., ::-1])
    if not written:
        raise OSError(f"{folder / 'detections.png'} cannot be encoded")

    write_atomically(folder / "detections.png", data.tobytes())
    write_page(settings, folder)
    return f"{text}\nreport: {folder / PAGE}"


def _intervals(folder: Path, run: StudyRun) -> dict[str, Interval]:
    """Score the averaged weights' detections of a fine-tuning again, with intervals."""
    name = "synthetic_val"
    return score_intervals(
        folder / run.folder / "inference" / "ema" / SUBMISSION_FILE,
        DatasetCatalog.get(name),
        MetadataCatalog.get(name).thing_classes,
    )


def write_real_report(runs: Sequence[StudyRun], folder: Path, datasets: Path) -> str:
    """Write the report of a study on real images: scores, and differences with intervals.

    Args:
        runs: fine-tunings of the study.
        folder: output folder of the study.
        datasets: folder of the datasets.

    Returns:
        The text of the report.

    Raises:
        StudyReportError: a result of a job is missing.
    """
    register_all_small(datasets)
    telemetry = _pre_trainings(runs, folder)
    report = replace(
        REAL_REPORT,
        details=lambda folder, run: {"telemetry": telemetry},
        appendix=lambda rows: [
            *compare(rows, REAL_REPORT.metrics),
            *compare_by_image(rows, [folder / run.folder for run in runs], TEST),
            *(f"- {name}: {_plain(value)}" for name, value in telemetry.items()),
        ],
    )
    return write_report(report, runs, folder)


def read_last(run: Path, names: Sequence[str]) -> dict[str, float]:
    """Average logged values over the last fifth of a training.

    Args:
        run: output folder of the training.
        names: parts of the logged values' names.

    Returns:
        Name -> mean, of the values that were logged.
    """
    records = read_records(run)
    keys = dict.fromkeys(key for record in records for key in record)
    courses = {key: read_course(records, key) for key in keys if any(n in key for n in names)}
    return {
        key: round(float(np.mean([value for _, value in last_fifth(course)])), 4)
        for key, course in courses.items()
        if course
    }


def _telemetry(settings: MutDetSettings, runs: Sequence[StudyRun], folder: Path) -> dict[str, Any]:
    """Measure the labels of the pre-trainings, their progress, and the cost that all arms share."""
    if not settings.pretrains:
        return {}
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
    return result | _pre_trainings(runs, folder)


def _pre_trainings(runs: Sequence[StudyRun], folder: Path) -> dict[str, Any]:
    """Describe the progress of the pre-trainings, and the cost that all arms share."""
    markers, result = read_markers(folder), {}
    # A pre-training serves several fine-tunings, and is described once.
    for stage in dict.fromkeys(stage for run in runs for stage in run.stages):
        place = folder / "pretrain" / stage.removeprefix("pretrain_")
        steps = max(record["iteration"] for record in read_records(place)) + 1
        last = read_last(place, ("total_loss", "retrieval", "cosine"))
        result[f"pre-training {place.name}"] = {"steps": steps, **last}
        # On real images no pre-training is measured.
        if f"measure_{place.name}" in markers:
            measured = read_results(folder / "measure" / place.name)
            heldout = {**next(iter(measured["results"].values())), **measured.get("gradients", {})}
            result[f"pre-training {place.name}"]["held-out"] = heldout

    result["CPU minutes of what the arms share"] = {
        name: markers[name]["cpu_seconds"] / 60 for name in _SHARED if name in markers
    }
    return result


def _draw_detections(runs: Sequence[StudyRun], folder: Path, count: int) -> np.ndarray:
    """Draw truth and the detections of every arm that was fine-tuned on the smallest share."""
    smallest = [run for run in runs if run.group == runs[0].group]
    chosen = {run.arm: folder / run.folder for run in reversed(smallest)}
    return np.concatenate(draw_runs(dict(reversed(chosen.items())), count))


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plain(one)}" for key, one in value.items())
    if value is None or value != value:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
