"""Reads XML label files in any encoding, with the line of each element."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree
from xml.parsers import expat

from rsd2.io.text import TextError, read_text

from .label_report import LabelReport

_LINE = "line of the file"  # no attribute of a real file has a name with blanks


def read_xml(
    path: str | Path, report: LabelReport, *, with_lines: bool = True
) -> ElementTree.Element | None:
    """Read an XML file.

    Args:
        path: path of the file.
        report: report that gets a file that cannot be read or is not well-formed, with its line.
        with_lines: whether elements know their lines (see `line_of`); False reads twice as fast.

    Returns:
        the root; None after a problem.
    """
    if not with_lines:
        try:
            return ElementTree.fromstring(read_text(path, is_xml=True))
        except (OSError, TextError, ElementTree.ParseError):
            pass  # the slower parser below names the line of the error

    builder, parser = ElementTree.TreeBuilder(), expat.ParserCreate()

    def start(tag: str, attributes: dict[str, str]) -> None:
        builder.start(tag, {**attributes, _LINE: str(parser.CurrentLineNumber)})

    parser.buffer_text = True
    parser.StartElementHandler = start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    try:
        # Expat itself knows no encoding of East Asia; given text, it ignores the declaration.
        parser.Parse(read_text(path, is_xml=True), True)
    except (OSError, TextError) as error:
        report.add_unreadable(path, error)
        return None
    except expat.ExpatError as error:
        report.add("xml", path, error.lineno, f"not well-formed XML: {error}")
        return None

    return builder.close()


def line_of(element: ElementTree.Element) -> int:
    """Return the 1-based line on which an element of `read_xml` begins."""
    return int(element.attrib[_LINE])
