"""DOTA text as one of the formats that the label converter reads and writes."""

from __future__ import annotations

from pathlib import Path

from .dota import format_dota_labels, parse_dota_labels
from .label_entries import LabelPage, Names, ObjectRow, Size
from .label_format import FilePerImage, LabelledImage, to_labels
from .label_report import LabelReport

_DECIMALS = 6


class DotaText(FilePerImage):
    """``x1 y1 x2 y2 x3 y3 x4 y4 class difficult``, see `rsd2.data.formats.dota`."""

    name = "dota"
    title = "DOTA text"
    kinds = ("DOTA text",)
    holds = frozenset({"difficult", "cut", "quadrilateral"})
    suffix = ".txt"
    no_labels = ("classes.txt",)

    def parse(self, path: Path, size: Size, classes: Names, report: LabelReport) -> LabelPage:
        """Parse a file, see `FilePerImage.parse`."""
        # The shapes stay unchecked here, because make_image checks those of all formats.
        labels = parse_dota_labels(path, report, class_names=classes)
        rows = [
            ObjectRow(polygon, name, flag, line=line)
            for polygon, name, flag, line in zip(
                labels.polygons.reshape(-1, 8).tolist(),
                labels.names,
                labels.difficult.tolist(),
                labels.lines.tolist(),
            )
        ]
        return LabelPage(rows)

    def format_file(self, image: LabelledImage, classes: tuple[str, ...]) -> str:
        """Compose the text of a label file, see `FilePerImage.format_file`."""
        labels = to_labels(image)
        return format_dota_labels(labels.polygons, labels.names, labels.difficult, _DECIMALS)
