"""How much of the truth pseudo-boxes cover, where the truth is known.

Recall is the share of the true objects that some box overlaps by the threshold; precision the share
of the boxes that overlap some true object by 0.5, so that clutter and parts count against it.
Objects marked difficult are no part of either.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch

from rsd2.data.formats.dota import read_dota_labels
from rsd2.data.formats.label_report import LabelReport
from rsd2.data.formats.pseudo_labels import PseudoLabels
from rsd2.ops import max_iou_rotated
from rsd2.structures import corners_to_boxes

Truth = Callable[[str], "tuple[np.ndarray, Sequence[str]] | None"]
"""From the name of an image to its (boxes (M, 5), M class names), or None if it has no labels."""
THRESHOLDS = (0.5, 0.75)

_logger = logging.getLogger(__name__)


def truth_of_dota_folder(folder: str | Path) -> Truth:
    """Read the truth from label files in DOTA's format.

    Args:
        folder: holds ``<image name without extension>.txt``.

    Returns:
        the reader.

    Raises:
        FileNotFoundError: if there is no such folder.
    """
    root = Path(folder)
    if not root.is_dir():
        raise FileNotFoundError(f"there is no label folder {root.absolute()}; check the path")

    def read(file_name: str) -> tuple[np.ndarray, Sequence[str]] | None:
        path = root / Path(file_name).with_suffix(".txt")
        if not path.is_file():
            return None
        report = LabelReport()
        labels = read_dota_labels(path, report)
        if report.total:  # what is left out here lowers no recall, so it must not go unsaid
            report.log(_logger, str(path))
        boxes = corners_to_boxes(torch.from_numpy(labels.polygons.reshape(-1, 4, 2))).numpy()
        easy = np.flatnonzero(labels.difficult == 0)
        return boxes[easy], [labels.names[index] for index in easy]

    return read


def truth_of_dataset(records: Iterable[dict], class_names: Sequence[str]) -> Truth:
    """Take the truth from dataset dicts, which are found by the images' names without folder.

    Args:
        records: of ``DatasetCatalog.get``.
        class_names: of the categories.

    Returns:
        the reader.
    """
    by_name = {Path(record["file_name"]).name: record["annotations"] for record in records}

    def read(file_name: str) -> tuple[np.ndarray, Sequence[str]] | None:
        annotations = by_name.get(Path(file_name).name)
        if annotations is None:
            return None
        easy = [a for a in annotations if not a.get("difficult", 0)]
        boxes = np.array([a["bbox"] for a in easy], dtype=np.float64).reshape(-1, 5)
        return boxes, [class_names[a["category_id"]] for a in easy]

    return read


def measure_recall(records: Iterable[PseudoLabels], truth: Truth) -> dict:
    """Compare pseudo-boxes with the truth.

    Args:
        records: of the images.
        truth: of the images; those without labels are counted and left out.

    Returns:
        ``images``, ``images_without_labels``, ``objects``, ``boxes_per_image``, ``precision``, and
        ``recall``: {class, or "all": {"objects": number, "0.5": share, "0.75": share}}; a share of
        nothing is None.
    """
    found: dict[str, Counter[str]] = {}
    images = without = boxes = right = 0
    for record in records:
        labels = truth(record.file_name)
        if labels is None:
            without += 1
            continue
        true_boxes, names = labels
        images, boxes = images + 1, boxes + len(record.boxes)
        iou = max_iou_rotated(
            torch.from_numpy(record.boxes).double(), torch.from_numpy(true_boxes).double()
        )
        right += int((iou.row_max >= THRESHOLDS[0]).sum())
        for name, best in zip(names, iou.column_max.tolist()):
            for row in ("all", name):
                counter = found.setdefault(row, Counter())
                counter["objects"] += 1
                counter.update({str(t): int(best >= t) for t in THRESHOLDS})
    recall = {
        name: {"objects": c["objects"]} | {str(t): c[str(t)] / c["objects"] for t in THRESHOLDS}
        for name, c in sorted(found.items(), key=lambda item: (item[0] != "all", item[0]))
    }
    return {
        "images": images,
        "images_without_labels": without,
        "objects": found["all"]["objects"] if found else 0,
        "boxes_per_image": boxes / images if images else None,
        "precision": right / boxes if boxes else None,
        "recall": recall,
    }


def format_recall(result: dict) -> str:
    """Write the outcome of `measure_recall` as a Markdown table.

    Args:
        result: of `measure_recall`.

    Returns:
        several lines.
    """
    lines = ["| class | objects | recall at IoU 0.5 | at 0.75 |", "|---|---:|---:|---:|"]
    for name, row in result["recall"].items():
        shares = " | ".join(f"{row[str(t)]:.3f}" for t in THRESHOLDS)
        lines.append(f"| {name} | {row['objects']} | {shares} |")
    numbers = {key: result[key] for key in ("boxes_per_image", "precision")}
    texts = {key: "none" if value is None else f"{value:.3f}" for key, value in numbers.items()}
    lines.append("")
    lines.append(
        f"{result['images']} images with labels, {result['images_without_labels']} without; "
        f"{texts['boxes_per_image']} boxes per image, precision {texts['precision']} (share of "
        "boxes that overlap a true object by 0.5). Objects marked difficult are left out."
    )
    return "\n".join(lines)
