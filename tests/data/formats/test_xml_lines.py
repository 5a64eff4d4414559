"""Lines of XML elements: found in the text, they are those that a parser counts."""

from __future__ import annotations

from pathlib import Path

import pytest

from rsd2.data.formats.label_report import LabelReport
from rsd2.data.formats.xml_labels import line_of, read_xml

OBJECTS = "<a>\n<object x='1'/>\n\n <objects><object\n>3</object></objects><object />\n</a>"


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("lines_of", [None, ("object",)])
@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (OBJECTS, [2, 4, 5]),
        (f"<?xml version='1.0'?>\n{OBJECTS}", [3, 5, 6]),
        (OBJECTS.replace("\n\n", "\n<!-- <object/>\n-->\n"), [2, 5, 6]),
        (OBJECTS.replace("\n\n", "\n<![CDATA[<object>]]>\n"), [2, 4, 5]),
        (OBJECTS.replace("\n\n", "\n<?note <object> ?>\n"), [2, 4, 5]),
        (OBJECTS.replace("'1'", "'<object'").replace("<object'", "&lt;object '"), [2, 4, 5]),
    ],
)
def test_lines_are_those_of_the_start_tags(text, lines, lines_of, line_end, tmp_path: Path) -> None:
    path, report = tmp_path / "a.xml", LabelReport()
    path.write_bytes(text.replace("\n", line_end).encode())
    root = read_xml(path, report, lines_of=lines_of)
    assert root is not None and report.total == 0
    assert [line_of(one) for one in root.iter("object")] == lines
    assert line_of(root) == lines[0] - 1


def test_name_spaces_and_errors_keep_their_lines(tmp_path: Path) -> None:
    path, report = tmp_path / "a.xml", LabelReport()
    path.write_text("<a xmlns='http://x'>\n<object/>\n</a>")
    root = read_xml(path, report, lines_of=("object",))
    assert root is not None and [line_of(one) for one in root] == [2]
    path.write_text("<a>\n<object>\n</a>")
    assert read_xml(path, report, lines_of=("object",)) is None
    assert [(p.kind, p.line) for p in report.problems] == [("xml", 3)]
