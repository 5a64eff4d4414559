"""Reads XML label files in any encoding, with the line of each element."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from xml.etree import ElementTree
from xml.parsers import expat

from rsd2.io.text import TextError, read_text

from .label_report import LabelReport

_LINE = "line of the file"  # no attribute of a real file has a name with blanks


def read_xml(
    path: str | Path, report: LabelReport, *, lines_of: Iterable[str] | None = None
) -> ElementTree.Element | None:
    """Read an XML file.

    Args:
        path: path of the file.
        report: report that gets a file that cannot be read or is not well-formed, with its line.
        lines_of: tags of the elements that know their lines (see `line_of`), besides the root;
            None numbers all elements, which takes longer.

    Returns:
        the root; None after a problem.
    """
    try:
        text = read_text(path, is_xml=True)
        root = ElementTree.fromstring(text)
        if _number_elements(root, text, lines_of):
            return root
    except (OSError, TextError, ElementTree.ParseError):
        pass  # the parser below, several times slower, names the line of the error

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


def _number_elements(root: ElementTree.Element, text: str, tags: Iterable[str] | None) -> bool:
    """Store the lines of some elements, found by their tags in the text.

    Args:
        root: parsed text.
        text: text of the file.
        tags: tags of the elements, besides the root; None for all elements.

    Returns:
        False if only the slower parser can tell the lines.
    """
    # Comments, quoted parts, entities and instructions may hold what only looks like an element.
    if "<!" in text or "<?" in text[1:]:
        return False
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")

    for tag in [None] if tags is None else {root.tag, *tags}:
        elements = list(root.iter(tag))
        name = r"[^\s/>]+" if tag is None else re.escape(tag)
        found = [(m[1], m.start()) for m in re.finditer(rf"<({name})(?=[\s/>])", text)]
        # The tags of name spaces, for example, are not written as the parser returns them.
        if [written for written, _ in found] != [element.tag for element in elements]:
            return False

        line, place = 1, 0
        for element, (_, start) in zip(elements, found):
            line += text.count("\n", place, start)
            place = start
            element.attrib[_LINE] = str(line)
    return True


def line_of(element: ElementTree.Element) -> int:
    """Return the 1-based line on which an element of `read_xml` begins."""
    return int(element.attrib[_LINE])
