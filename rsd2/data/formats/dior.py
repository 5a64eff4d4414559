"""DIOR-R's annotations: one XML file for each image, with rotated quadrilaterals. No Detectron2.

The format is Pascal VOC's with a ``robndbox`` of eight corner elements for each object. Class names
mix upper and lower case (``Expressway-Service-area``).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from rsd2.data.class_orders import canonical_class_name

from .dota import DotaLabels, check_polygons
from .foreign import describe_format, guess_xml
from .label_entries import LabelPage
from .label_parsing import read_stated_size
from .label_report import LabelReport
from .values import is_coordinate, parse_difficulty, parse_number
from .xml_labels import line_of, read_xml

_CORNERS = tuple(
    f"{axis}_{corner}"
    for corner in ("left_top", "right_top", "right_bottom", "left_bottom")
    for axis in "xy"
)


def read_dior_labels(
    path: str | Path, report: LabelReport, class_names: Sequence[str]
) -> DotaLabels:
    """Read one annotation file; broken objects go to the report, the others are returned.

    Args:
        path: path of the XML file.
        report: report that gets one problem for each broken object, with its line.
        class_names: canonical names; those of the file are spelt like them, whatever their case.

    Returns:
        the objects, with their vertices in the file's order: left top, right top, right bottom,
        left bottom; none if the file cannot be read, which is reported too.
    """
    report.label_files += 1
    rows, names, flags, lines = [], [], [], []
    root = read_xml(path, report, lines_of=("object", "height"))
    # A broken or empty file has no format that could be foreign: its own problem is reported.
    if root is not None and (name := guess_xml(root)) not in ("", "DIOR-R XML"):
        report.add("foreign_format", path, line_of(root), describe_format(name))
        root = None
    page = LabelPage()
    if root is not None:
        read_stated_size(page, root, "size/height", "size/width")

    for element in () if root is None else root.findall("object"):
        parsed = _parse_object(element, path, report)
        if parsed is not None:
            rows.append(parsed[0])
            names.append(canonical_class_name(parsed[1], class_names))
            flags.append(parsed[2])
            lines.append(line_of(element))

    # Checked in one go, because NumPy costs the same for one object as for a hundred.
    labels = DotaLabels(
        np.array(rows, dtype=np.float64).reshape(-1, 4, 2),
        names,
        np.array(flags, dtype=np.int64),
        np.array(lines, dtype=np.int64),
        size=page.size,
        size_line=page.size_line,
    )
    return check_polygons(labels, path, report)


def _parse_object(
    element: ElementTree.Element, path: str | Path, report: LabelReport
) -> tuple[list[float], str, int] | None:
    """Return 8 coordinates, raw class name, difficult flag; or None, and report a problem."""
    line = line_of(element)
    name = (element.findtext("name") or "").strip()
    texts = [(element.findtext(f"robndbox/{corner}") or "").strip() for corner in _CORNERS]
    missing = [corner for corner, text in zip(("name", *_CORNERS), (name, *texts)) if not text]
    if missing:
        horizontal = "; it has a horizontal bndbox" if element.find("bndbox") is not None else ""
        message = f"object {name!r} lacks {', '.join(missing)}{horizontal}"
        report.add("missing_element", path, line, message)
        return None

    try:
        # float() reads "1_0" as 10; `parse_number` refuses that, but is slower.
        values = list(map(parse_number if "_" in "".join(texts) else float, texts))
    except ValueError as error:
        report.add("number", path, line, f"{name}: {error}")
        return None

    if not is_coordinate(*values):
        report.add("non_finite", path, line, f"{name}: corners {' '.join(texts)}")
        return None
    flag = (element.findtext("difficult") or "").strip()
    try:
        return values, name, parse_difficulty(flag)
    except ValueError:
        report.add("difficult_flag", path, line, f"{name}: difficult flag {flag!r}")
        return None
