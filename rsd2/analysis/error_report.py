"""The report of errors: one HTML page that shows what goes wrong, and its numbers as JSON."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rsd2.evaluation.matching.serial_torch import serial_torch
from rsd2.evaluation.report import mean_percent, to_json
from rsd2.io.files import make_output_folder, write_atomically

from .error_figures import (
    plot_angles,
    plot_calibration,
    plot_confusions,
    plot_curves,
    plot_gains,
    plot_recall,
)
from .error_input import (
    AnalysisError,
    LabelledSet,
    Predictions,
    check_same_protocol,
    find_predictions,
    read_labels,
    read_predictions,
    read_record,
)
from .error_kinds import CORRECTIONS, ErrorProtocol, judge_detections
from .error_pictures import LEGEND, draw_confusions, draw_worst_images
from .error_statistics import (
    NEIGHBOUR_EDGES,
    SIZE_EDGES,
    RunDifference,
    RunErrors,
    analyse_run,
    angle_errors,
    calibration,
    compare_runs,
    confidence_curve,
    confusion_matrix,
    heading_flips,
    recall_by,
)
from .page import Page

PAGE_FILE = "error_report.html"
JSON_FILE = "error_report.json"

_logger = logging.getLogger(__name__)


@serial_torch()
def write_error_report(
    predictions: str | Path,
    output: str | Path,
    *,
    dataset: str | None = None,
    against: str | Path | None = None,
    iou_threshold: float = 0.5,
    num_images: int = 12,
) -> Path:
    """Write the report of a run, or of two side by side.

    The rule of the average precision and the objects that count are those of the evaluation, if
    its file of metrics stands beside the detections, else those of DOTA v1.0. After COCO's rule of
    101 recall points, which this report does not know, the area under the curve is taken.

    Args:
        predictions: folder that an evaluator of boxes wrote; or ``Task1.zip`` of rotated boxes, or
            a JSON file in COCO's result format.
        output: folder that gets ``error_report.html`` and ``error_report.json``.
        dataset: registered dataset that the model was run on; None takes the one that the file of
            metrics names.
        against: predictions of a run that the first one is compared with.
        iou_threshold: IoU above which a detection has found an object, in (0.1, 1).
        num_images: most of the worst images that are drawn for each run.

    Returns:
        Path of the page.

    Raises:
        AnalysisError: the predictions cannot be analysed, or not compared.
        OSError: a file cannot be read or written.
    """
    inputs = [Path(path) for path in (against, predictions) if path is not None]
    # Before the labels, which may take a minute to read.
    for path in inputs:
        find_predictions(path)
    labels = read_labels(dataset or _dataset_of(inputs[-1]))
    found = [read_predictions(path, labels) for path in inputs]
    if len(found) == 2:
        check_same_protocol(*found)

    protocol = _protocol_of(found[-1], iou_threshold)
    make_output_folder(Path(output))
    runs = [analyse_run(labels, one, protocol) for one in found]
    difference = compare_runs(labels.truth, runs, protocol) if len(runs) == 2 else None

    page = build_page(labels, runs, protocol, difference, num_images)
    numbers = [summarize_run(labels, run, protocol) for run in runs]
    summary: dict[str, Any] = {"dataset": labels.name, "protocol": vars(protocol), "runs": numbers}
    if difference is not None:
        summary["difference"] = difference._asdict()
    write_atomically(Path(output) / JSON_FILE, to_json(summary))
    page.write(Path(output) / PAGE_FILE)
    _logger.info("Wrote %s to %s", PAGE_FILE, output)
    return Path(output) / PAGE_FILE


def score_of_best_f1(predictions: str | Path, *, dataset: str | None = None) -> float:
    """Find the score at which a run's detections are best cut off: greatest F1 at IoU 0.5.

    Args:
        predictions: see `write_error_report`.
        dataset: see `write_error_report`.

    Returns:
        The lowest score to keep, all classes together; 0 without detections.

    Raises:
        AnalysisError: the predictions cannot be analysed.
        OSError: a file cannot be read.
    """
    path = Path(predictions)
    find_predictions(path)
    labels = read_labels(dataset or _dataset_of(path))
    found = read_predictions(path, labels)
    protocol = _protocol_of(found, ErrorProtocol.iou_threshold)
    judgement = judge_detections(labels.truth, found.detections, protocol)
    num_objects = int(protocol.counted(labels.truth).sum())
    return confidence_curve(found.detections, judgement, num_objects).best_score


def summarize_run(labels: LabelledSet, run: RunErrors, protocol: ErrorProtocol) -> dict[str, Any]:
    """Collect the numbers of a run for machines.

    Args:
        labels: labels of the dataset.
        run: errors of the run.
        protocol: rules.

    Returns:
        Percentages and counts, ready for JSON.
    """
    counted = protocol.counted(labels.truth)
    matrix, _ = confusion_matrix(labels, run, protocol)
    return {
        "name": run.predictions.name,
        "ap": mean_percent(run.ap),
        "ap_of_class": dict(zip(labels.truth.class_names, (100 * run.ap).tolist())),
        "ap_lost_to": {kind: mean_percent(gain) for kind, gain in run.gains.items()},
        "errors": {kind: _count(run, kind)[0] for kind in CORRECTIONS if kind != "whole box"},
        "best_f1": float(run.curve.f1.max(initial=0)),
        "best_f1_score": run.threshold,
        "confusion": {"classes": list(labels.truth.class_names), "counts": matrix.tolist()},
        "calibration_error": calibration(run)[1],
        "recall": {
            name: [one._asdict() for one in bins]
            for name, bins in _recalls(labels, run, counted).items()
        },
        "heading_flips": heading_flips(labels, run),
    }


def build_page(
    labels: LabelledSet,
    runs: Sequence[RunErrors],
    protocol: ErrorProtocol,
    difference: RunDifference | None,
    num_images: int,
) -> Page:
    """Lay out the page.

    Args:
        labels: labels of the dataset.
        runs: one run, or two: the one to compare with, and the one that the page is about.
        protocol: rules.
        difference: comparison of two runs.
        num_images: most of the worst images that are drawn for each run.

    Returns:
        The page.
    """
    run, counted = runs[-1], protocol.counted(labels.truth)
    page = Page(
        f"Errors of {run.predictions.name}" if difference is None else "Errors of two runs",
        f"{labels.name}: {len(labels.records)} images, {int(counted.sum())} objects that count, "
        f"{int((~counted).sum())} that do not",
    )
    _add_facts(page, runs, protocol)
    if difference is not None:
        _add_difference(page, labels, runs, difference)

    _add_lost_precision(page, labels, runs, protocol)
    _add_curves(page, labels, runs, protocol)
    for one in runs:
        title = "" if difference is None else f" of {one.predictions.name}"
        matrix, rows = confusion_matrix(labels, one, protocol)
        page.section(
            f"Confusions{title}",
            f"Detections with a score of {one.threshold:.2f} or more, which gives the greatest "
            "F1. Below, the most frequent confusions of classes: the object yellow, the detection "
            "red.",
        )
        page.plot(plot_confusions(matrix, labels.truth.class_names), "Objects in rows")
        page.gallery(draw_confusions(labels, one, rows))

    _add_directions(page, labels, runs)
    _add_recalls(page, labels, runs, counted)
    _add_calibration(page, runs)
    for one in runs:
        title = "" if difference is None else f" of {one.predictions.name}"
        page.section(f"Worst images{title}", LEGEND)
        page.gallery(draw_worst_images(labels, one, counted, num_images))
    _add_rules(page, labels, runs, protocol)
    return page


def _add_facts(page: Page, runs: Sequence[RunErrors], protocol: ErrorProtocol) -> None:
    for run in runs:
        if len(runs) > 1:
            page.heading(run.predictions.name)
        page.facts(
            [
                (f"AP at IoU {protocol.iou_threshold:g}, %", f"{mean_percent(run.ap):.2f}"),
                ("best F1, %", f"{100 * run.curve.f1.max(initial=0):.2f}"),
                ("score of the best F1", f"{run.threshold:.2f}"),
                ("detections", len(run.detections)),
                ("false ones at that score", int((run.judgement.is_false & run.is_shown).sum())),
                ("calibration error, %", f"{100 * calibration(run)[1]:.1f}"),
            ]
        )


def _add_difference(
    page: Page, labels: LabelledSet, runs: Sequence[RunErrors], difference: RunDifference
) -> None:
    first, second = (run.predictions.name for run in runs)
    low, high = (100 * bound for bound in difference.interval)
    verdict = "it may be chance" if low <= 0 <= high else "chance alone hardly makes it"
    page.section(
        "Difference of the two runs",
        f"The mean AP of {second} less that of {first} is {100 * difference.difference:+.2f} "
        f"points, with a 95 % interval from {low:+.2f} to {high:+.2f}: {verdict}. The interval "
        f"comes from {difference.samples} samples of {difference.unit}, the same for both runs; "
        f"{second} is better in {100 * difference.better:.0f} % of them. It does not contain the "
        "chance of training: another seed gives another run.",
    )
    page.table(
        ["class", first, second, "difference"],
        [
            [name, *(round(value, 2) for value in (one, other, other - one))]
            for name, one, other in zip(labels.truth.class_names, *_percentages(runs))
        ],
        "AP in percent",
    )


def _add_lost_precision(
    page: Page, labels: LabelledSet, runs: Sequence[RunErrors], protocol: ErrorProtocol
) -> None:
    page.section(
        "What the lost average precision is made of",
        "Each kind of error is corrected alone, and everything is scored again: the bar is what "
        "that gains. The bars need not add up to what is missing from 100, because a detection can "
        "have two errors, and because the first correction gains most.",
    )
    page.plot(plot_gains(runs), "Points of mean AP that the correction of each kind gains")
    for run in runs:
        if len(runs) > 1:
            page.heading(run.predictions.name)
        page.table(
            ["kind", "AP lost", "errors", f"score ≥ {run.threshold:.2f}", "corrected"],
            [
                [kind, round(mean_percent(run.gains[kind]), 2), *_count(run, kind), what]
                for kind, what in CORRECTIONS.items()
            ],
            "A wrong box is counted as the part whose correction brings it nearest to the object; "
            "AP lost is what the correction of that part of all wrong boxes gains",
        )
        worst = {kind: 100 * gain for kind, gain in run.gains.items()}
        page.table(
            ["class", "objects", "AP", *CORRECTIONS],
            [
                [name, number, 100 * run.ap[k], *(round(worst[kind][k], 2) for kind in CORRECTIONS)]
                for k, (name, number) in enumerate(_objects_of_classes(labels, protocol))
                if number
            ],
            "AP in percent, and the points that each kind costs, by class",
        )


def _add_curves(
    page: Page, labels: LabelledSet, runs: Sequence[RunErrors], protocol: ErrorProtocol
) -> None:
    page.section(
        "Precision, recall and score",
        "The classes with the lowest AP, and all classes together in black.",
    )
    for run in runs:
        if len(runs) > 1:
            page.heading(run.predictions.name)
        classes = list(enumerate(_objects_of_classes(labels, protocol)))
        known = [entry for entry in classes if entry[1][1]]
        known.sort(key=lambda entry: run.ap[entry[0]])
        curves = [("all", run.curve)]
        for label, (name, number) in known:
            curves.append((name, confidence_curve(run.detections, run.judgement, number, label)))
        page.plot(plot_curves(curves, "recall"), "Precision over recall")
        page.plot(
            plot_curves(curves, "score", run.threshold),
            f"F1 over the score at which detections are cut off; all together best at "
            f"{run.threshold:.2f}",
        )


def _add_directions(page: Page, labels: LabelledSet, runs: Sequence[RunErrors]) -> None:
    if runs[-1].predictions.are_upright:
        return

    page.section("Angles", "Of found objects: bars are medians, lines the 90th percentiles.")
    page.plot(
        plot_angles([angle_errors(labels, run) for run in runs], runs),
        "Angle error by the aspect of the object",
    )
    if np.isnan(labels.heading).all():
        page.paragraph("The labels have no heads, so that no heading can be judged.", dim=True)
        return
    for run in runs:
        flips = heading_flips(labels, run)
        name = run.predictions.name
        if flips is None:
            page.paragraph(f"The boxes of {name} have no heading: all angles lie in half a turn.")
            continue
        page.table(
            ["class", "found, with a head", "heading the other way", "share, %"],
            [[cls, total, wrong, 100 * wrong / total] for cls, total, wrong in flips],
            f"Headings of {name}: wrong by more than 90 degrees",
        )


def _add_recalls(
    page: Page, labels: LabelledSet, runs: Sequence[RunErrors], counted: np.ndarray
) -> None:
    page.section("Which objects are found", "Recall at the score of the greatest F1.")
    found = [_recalls(labels, run, counted) for run in runs]
    for label in found[0]:
        page.plot(plot_recall([own[label] for own in found], runs, label), f"Recall by {label}")


def _add_calibration(page: Page, runs: Sequence[RunErrors]) -> None:
    page.section(
        "Calibration of the scores",
        "Of detections with a score of 0.7, seven in ten should be right: on the dotted line.",
    )
    tables = [calibration(run)[0] for run in runs]
    page.plot(plot_calibration(tables, runs), "Share of true detections by score, in tenths")


def _add_rules(
    page: Page, labels: LabelledSet, runs: Sequence[RunErrors], protocol: ErrorProtocol
) -> None:
    page.section(
        "Rules",
        f"A detection has found an object if it is the best-scored one whose polygon IoU with it, "
        f"its best object of its class, is above {protocol.iou_threshold:g} (DOTA's protocol). "
        f"It is about an object if their IoU is above {protocol.touch_iou:g}. AP by the method "
        f"{protocol.ap_method}, objects by the policy {protocol.difficult_policy}; the mean is "
        "over the classes with objects. Upright boxes are scored by the same rules, so that "
        "numbers of other protocols differ. Recall, confusions and pictures take the score of the "
        "greatest F1 of all classes together.",
    )
    for run in runs:
        unseen = len(labels.records) - len(np.unique(run.detections.image_index))
        page.paragraph(f"{run.predictions.name}: {unseen} images have no detection.", dim=True)
        if run.predictions.record is None:
            page.paragraph(
                f"{run.predictions.name} has no file of metrics: nobody knows by which protocol "
                "it was merged.",
                dim=True,
            )


def _recalls(labels: LabelledSet, run: RunErrors, counted: np.ndarray) -> dict[str, list]:
    """Return the bins of each property of the objects that is known."""
    place = "window" if labels.has_windows else "image"
    properties = {
        "size, pixels": (labels.sizes, SIZE_EDGES),
        "size, metres": (labels.sizes * labels.metres, SIZE_EDGES),
        f"distance to a border of the {place}, pixels": (labels.border, SIZE_EDGES),
        "objects nearer than four times the own size": (labels.neighbours, NEIGHBOUR_EDGES),
    }
    found = {
        name: recall_by(values, edges, counted, run.is_found)
        for name, (values, edges) in properties.items()
    }
    return {name: bins for name, bins in found.items() if bins}


def _count(run: RunErrors, kind: str) -> tuple[int | None, int | None]:
    if kind == "whole box":
        return None, None
    return (int(run.judgement.missed.sum()), None) if kind == "missed" else run.count(kind)


def _objects_of_classes(labels: LabelledSet, protocol: ErrorProtocol) -> list[tuple[str, int]]:
    names, counted = labels.truth.class_names, protocol.counted(labels.truth)
    counts = np.bincount(labels.truth.class_index[counted], minlength=len(names))
    return list(zip(names, counts.tolist()))


def _percentages(runs: Sequence[RunErrors]) -> list[list[float]]:
    return [(100 * run.ap).tolist() for run in runs]


def _dataset_of(predictions: Path) -> str:
    record = read_record(predictions)
    name = None if record is None else record.get("dataset", {}).get("name")
    if name is None:
        raise AnalysisError(
            f"{predictions} does not say which dataset it belongs to; name it with --dataset"
        )
    return name


def _protocol_of(predictions: Predictions, iou_threshold: float) -> ErrorProtocol:
    record = (predictions.record or {}).get("protocol", {})
    try:
        rules = ErrorProtocol(iou_threshold=iou_threshold)
        recorded = str(record.get("ap_method", rules.ap_method))
        # It says "voc07 (11 points)". The 101 points of COCO's rule come closest to the area.
        method = "voc07" if recorded.startswith("voc07") else "area"
        policy = record.get("difficult_policy", rules.difficult_policy)
        return ErrorProtocol(iou_threshold, rules.touch_iou, method, policy)
    except ValueError as error:
        raise AnalysisError(str(error)) from error
