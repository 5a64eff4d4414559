"""Functions that parsers of XML and JSON labels share: open files, read elements, build XML."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from rsd2.io.text import TextError, read_json

from .foreign import describe_format, guess_file, guess_json, guess_xml
from .label_entries import ENTRY_ERRORS, EntryError, LabelPage, ObjectRow, add_entry_problem
from .label_report import LabelReport
from .values import parse_whole
from .xml_labels import line_of, read_xml


def open_xml(
    path: Path, kinds: Sequence[str], report: LabelReport, lines_of: Sequence[str] | None = None
) -> ElementTree.Element | None:
    """Read an XML file of labels.

    Args:
        path: path of the file.
        kinds: keys of ``rsd2.data.formats.foreign.READERS`` that the parser reads.
        report: report that gets a file that is broken or of another format.
        lines_of: tags of the elements that know their lines; None for all elements.

    Returns:
        the root; None after a problem.
    """
    if _is_foreign(path, (".xml",), report):
        return None

    root = read_xml(path, report, lines_of=lines_of)
    if root is None:
        return None

    # A file without objects shows no kind and passes as an empty one.
    kind = guess_xml(root)
    if kind and kind not in kinds:
        report.add("foreign_format", path, line_of(root), describe_format(kind))
        return None
    return root


def open_json(path: Path, kinds: Sequence[str], report: LabelReport) -> Any:
    """Read a JSON file of labels.

    Args:
        path: path of the file.
        kinds: keys of ``rsd2.data.formats.foreign.READERS`` that the parser reads.
        report: report that gets a file that is broken or of another format.

    Returns:
        content of the file; None after a problem.
    """
    if _is_foreign(path, (".json", ".geojson"), report):
        return None

    try:
        content = read_json(path)
    except (OSError, TextError) as error:
        report.add_unreadable(path, error)
        return None

    kind = guess_json(content)
    if kind in kinds:
        return content

    message = describe_format(kind) if kind else f"the content is no {' or '.join(kinds)}"
    report.add("foreign_format", path, None, message)
    return None


def _is_foreign(path: Path, endings: Sequence[str], report: LabelReport) -> bool:
    """Report a file with another ending whose content shows its format."""
    kind = "" if path.suffix.lower() in endings else guess_file(path)
    if kind:
        report.add("foreign_format", path, None, describe_format(kind))
    return bool(kind)


def child_text(element: ElementTree.Element, place: str) -> str:
    """Return the text of an element below another one.

    Args:
        element: upper element.
        place: path from it to the lower element.

    Returns:
        the text without blanks around it.

    Raises:
        EntryError: if the lower element is missing or empty.
    """
    text = (element.findtext(place) or "").strip()
    if not text:
        raise EntryError("label_entry", f"the element {place} is missing or empty")
    return text


def stated_size(height: Any, width: Any) -> tuple[int, int] | None:
    """Turn the image size that a label file states into numbers.

    Args:
        height: height in pixels, a number or text.
        width: width in pixels, a number or text.

    Returns:
        (height, width); None if one of them is missing or not a whole number > 0, because tools
        write 0 for an unknown size.
    """
    try:
        size = parse_whole(height), parse_whole(width)
    except ValueError:
        return None
    return size if min(size) > 0 else None


def read_stated_size(page: LabelPage, root: ElementTree.Element, height: str, width: str) -> None:
    """Store the image size that an XML file states, and its line.

    Args:
        page: page that gets them.
        root: root element from `open_xml`, which numbers the elements of the height.
        height: path to the element of the height.
        width: path to the element of the width.
    """
    element = root.find(height)
    if element is not None:
        page.size = stated_size(element.text, root.findtext(width))
        page.size_line = line_of(element)


def add_element(
    parent: ElementTree.Element, tag: str, text: Any = None, **attributes: str
) -> ElementTree.Element:
    """Add an element at the end of another one.

    Args:
        parent: element that gets the new one.
        tag: tag of the new element.
        text: content of the new element, or None.
        attributes: attributes of the new element.

    Returns:
        the new element.
    """
    element = ElementTree.SubElement(parent, tag, attributes)
    if text is not None:
        element.text = str(text)
    return element


def to_xml(root: ElementTree.Element) -> str:
    """Format elements as the text of a file, indented and with a declaration."""
    ElementTree.indent(root)
    text = ElementTree.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="utf-8"?>\n{text}\n'


def to_json(content: Any) -> str:
    """Format the text of a JSON file, indented, with names in any script unescaped."""
    return json.dumps(content, ensure_ascii=False, indent=1) + "\n"


def add_xml_rows(
    page: LabelPage,
    elements: Iterable[ElementTree.Element],
    parse: Callable[[ElementTree.Element, int], ObjectRow],
    path: Path,
    report: LabelReport,
) -> None:
    """Parse the objects of an XML file, and report those that cannot be used.

    Args:
        page: page that gets the objects.
        elements: element of each object, from `open_xml`.
        parse: parser of one element and its line; raises one of ``ENTRY_ERRORS``.
        path: path of the file.
        report: report that gets the problems.
    """
    for element in elements:
        line = line_of(element)
        try:
            page.rows.append(parse(element, line))
        except ENTRY_ERRORS as error:
            add_entry_problem(report, path, line, element.tag, error)
