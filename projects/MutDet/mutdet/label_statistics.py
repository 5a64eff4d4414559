"""A page about a run of pseudo-labels: numbers, distributions, pictures.

Shapes: N boxes of a run.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from rsd2.data.drawing.boxes import class_color, draw_rotated_boxes, make_contact_sheet
from rsd2.data.formats.pseudo_labels import PseudoLabels, ShardHeader
from rsd2.io.files import write_atomically
from rsd2.io.image_io import read_image

from .label_recall import format_recall

PAGE, NUMBERS, SHEET, CHARTS = (
    "statistics.md",
    "statistics.json",
    "statistics_boxes.png",
    "statistics_histograms.png",
)
_QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
_SHOWN_FILES = 20


def measure(records: Sequence[PseudoLabels], header: ShardHeader) -> dict:
    """Count and measure the boxes of a run.

    Args:
        records: pseudo-labels of all images.
        header: header of the run.

    Returns:
        Plain values: numbers of images and boxes, of what was removed, quantiles of the boxes per
        image, sides, aspect ratios and shares of the image; and of the clusters if there are any.
    """
    per_image = np.array([len(record.boxes) for record in records])
    long, aspect, share = _measures(records)
    short = long / aspect

    result = {
        "run_id": header.run_id,
        "settings": dict(header.settings),
        "images": header.num_images,
        "unreadable_images": len(header.skipped),
        "images_without_boxes": int((per_image == 0).sum()),
        "boxes": int(per_image.sum()),
        "counts": dict(header.counts),
        "quantiles": {
            "of": list(_QUANTILES),
            "boxes per image": _quantiles(per_image),
            "longer side, pixels": _quantiles(long),
            "shorter side, pixels": _quantiles(short),
            "aspect ratio": _quantiles(aspect),
            "share of the image": _quantiles(share),
        },
        "unreadable": dict(header.skipped),
    }

    if header.embedding is not None:
        clusters = [record.clusters for record in records]
        # The empty array keeps a run without any image from failing; the length keeps empty
        # clusters.
        sizes = np.bincount(
            np.concatenate([np.zeros(0, np.int64), *clusters]),
            minlength=header.embedding.num_clusters,
        )
        result["clusters"] = header.embedding.num_clusters
        result["empty_clusters"] = int((sizes == 0).sum())
        result["quantiles"]["boxes per cluster"] = _quantiles(sizes)

    return result


def write_statistics(
    folder: str | Path,
    records: Sequence[PseudoLabels],
    header: ShardHeader,
    image_root: str | Path,
    *,
    recall: dict | None = None,
    num_pictures: int = 16,
) -> Path:
    """Write the page of statistics:  ``statistics.md``, ``.json`` and two pictures.

    Args:
        folder: folder to write to.
        records: pseudo-labels of all images, at least one.
        header: header of the run.
        image_root: folder of the images, which the pictures show.
        recall: outcome of ``measure_recall``; None if the truth is not known.
        num_pictures: images on the contact sheet, evenly spread over those with boxes, >= 1.

    Returns:
        Path of the page.
    """
    folder = Path(folder)
    numbers = measure(records, header) | ({} if recall is None else {"recall": recall})
    write_atomically(folder / NUMBERS, (json.dumps(numbers, indent=1) + "\n").encode("utf-8"))

    # The page comes last: its existence tells that all is there.
    sheet = _draw_sheet(records, Path(image_root), num_pictures)
    if sheet is not None:
        write_atomically(folder / SHEET, _png(sheet))
    write_atomically(folder / CHARTS, _draw_histograms(records))
    page = _format_page(numbers, sheet is not None)
    write_atomically(folder / PAGE, page.encode("utf-8"))
    return folder / PAGE


def _measures(records: Sequence[PseudoLabels]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (N,) longer sides, aspect ratios and shares of the image."""
    boxes = np.concatenate([np.zeros((0, 5)), *(r.boxes for r in records)])
    pixels = np.repeat(
        [float(r.height * r.width) for r in records], [len(r.boxes) for r in records]
    )
    return boxes[:, 2], boxes[:, 2] / boxes[:, 3], boxes[:, 2] * boxes[:, 3] / pixels


def _quantiles(values: np.ndarray) -> list[float] | None:
    if not len(values):
        return None
    return [float(f"{value:.4g}") for value in np.quantile(values, _QUANTILES)]


def _draw_sheet(
    records: Sequence[PseudoLabels], image_root: Path, num_pictures: int
) -> np.ndarray | None:
    """Draw images with their boxes, coloured by cluster if there are any; None without boxes."""
    with_boxes = [record for record in records if len(record.boxes)]
    if not with_boxes:
        return None

    count = min(num_pictures, len(with_boxes))
    chosen = [with_boxes[round(k)] for k in np.linspace(0, len(with_boxes) - 1, count)]
    pictures = []
    for record in chosen:
        image = read_image(image_root / record.file_name)
        # Small tiles are enlarged, so that boxes of a few pixels stay visible.
        zoom = max(1, round(320 / max(image.shape[:2])))
        image = cv2.resize(image, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_LINEAR)
        boxes = record.boxes * np.array([zoom, zoom, zoom, zoom, 1], dtype=np.float32)
        ids = range(len(boxes)) if record.clusters is None else record.clusters.tolist()
        pictures.append(draw_rotated_boxes(image, boxes, colors=[class_color(i) for i in ids]))

    captions = [f"{record.file_name}: {len(record.boxes)}" for record in chosen]
    return make_contact_sheet(pictures, captions)


def _draw_histograms(records: Sequence[PseudoLabels]) -> bytes:
    """Draw distributions of boxes per image, longer sides and aspect ratios, as PNG."""
    long, aspect, _ = _measures(records)
    per_image = np.array([len(record.boxes) for record in records])
    figure = Figure(figsize=(12, 3.2), layout="constrained")
    # A canvas of its own: pyplot would keep the figure for ever and might need a display.
    FigureCanvasAgg(figure)

    for axes, (values, name, logarithmic) in zip(
        figure.subplots(1, 3),
        (
            (per_image, "boxes per image", False),
            (long, "longer side, pixels", True),
            (aspect, "aspect ratio", True),
        ),
    ):
        if len(values):
            low, high = float(values.min()), float(values.max())
            bins = np.geomspace(low, high, 40) if logarithmic and low < high else 40
            axes.hist(values, bins=bins)
            if logarithmic:
                axes.set_xscale("log")

        axes.set_xlabel(name)
        axes.set_ylabel("images" if values is per_image else "boxes")

    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=80)
    return stream.getvalue()


def _png(image_rgb: np.ndarray) -> bytes:
    written, data = cv2.imencode(".png", cv2.cvtColor(image_rgb, cv2.COLOR_RGB2BGR))
    if not written:
        raise OSError("OpenCV could not encode the contact sheet")
    return data.tobytes()


def _format_page(numbers: dict, with_sheet: bool) -> str:
    lines = [f"# Pseudo-labels of run {numbers['run_id']}", ""]
    plain = ("images", "unreadable_images", "images_without_boxes", "boxes")
    plain += tuple(key for key in ("clusters", "empty_clusters") if key in numbers)
    lines += [f"- {key.replace('_', ' ')}: {numbers[key]}" for key in plain]
    counts = ", ".join(f"{key} {value}" for key, value in numbers["counts"].items())
    lines += [f"- from proposals to boxes: {counts}"]
    lines += [f"- settings: `{json.dumps(numbers['settings'])}`", ""]

    quantiles = dict(numbers["quantiles"])
    lines.append("| quantile | " + " | ".join(f"{q:g}" for q in quantiles.pop("of")) + " |")
    lines.append("|---|" + "---:|" * len(_QUANTILES))
    for name, values in quantiles.items():
        cells = ["none"] * len(_QUANTILES) if values is None else [f"{v:g}" for v in values]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    if "recall" in numbers:
        lines += ["", "## Against the truth", "", format_recall(numbers["recall"])]
    if numbers["unreadable"]:
        lines += ["", "## Unreadable images", ""]
        listed = list(numbers["unreadable"].items())
        lines += [f"- `{name}`: {why}" for name, why in listed[:_SHOWN_FILES]]
        if len(listed) > _SHOWN_FILES:
            lines.append(f"- and {len(listed) - _SHOWN_FILES} more, all in `{NUMBERS}`")

    lines += ["", f"![distributions]({CHARTS})"]
    if with_sheet:
        lines += ["", f"![images with boxes]({SHEET})"]
    return "\n".join(lines) + "\n"
