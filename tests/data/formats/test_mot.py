"""Rows of tracks: both dialects, and each known defect of VISO's files reported with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from rsd2.data.formats.label_report import LabelReport
from rsd2.data.formats.mot import MotRow, read_mot_rows


def read(tmp_path: Path, text: str) -> tuple[list[MotRow], LabelReport]:
    path, report = tmp_path / "gt.txt", LabelReport()
    path.write_text(text, encoding="utf-8")
    return read_mot_rows(path, report), report


def test_commas_give_width_and_height_blanks_give_corners(tmp_path: Path) -> None:
    rows, report = read(tmp_path, "1,7,10,20,4,5,1,1,-1,-1\n\n2 8 10 20 14 26 1 1 -1 -1\n")
    assert rows == [MotRow(1, 7, (10, 20, 4, 5), 1), MotRow(2, 8, (10, 20, 4, 6), 3)]
    assert report.total == 0 and report.objects == 2


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("0,0,0,0,0,0,0,0,0,0", "mot_row"),
        ("3,1,,20,4,5,1,1,-1,-1", "mot_row"),
        ("3,1,10,20", "mot_row"),
        ("3,1,ten,20,4,5", "mot_row"),
        ("3,1,nan,20,4,5", "mot_row"),
        ("1.5,1,10,20,4,5", "mot_row"),
        ("3,3.5,10,20,4,5", "mot_row"),
        ("3,1,10,20,1e12,5", "mot_row"),
        ("10 20 30 20 35 40 10 40 ship 0", "foreign_format"),
        ("0 0.5 0.5 0.1 0.2", "foreign_format"),
        ("3,1,0.1,0.2,0.4,0.5", "mot_row"),
        ("3,1,10,20,0,5", "box_without_area"),
        ("3 1 14 20 10 26", "box_without_area"),
    ],
)
def test_wrong_rows_are_left_out_and_reported(tmp_path: Path, line: str, kind: str) -> None:
    rows, report = read(tmp_path, f"1,7,10,20,4,5,1,1,-1,-1\n{line}\n")
    assert len(rows) == 1
    (problem,) = report.problems
    assert (problem.kind, problem.line) == (kind, 2) and problem.file.endswith("gt.txt")


def test_fractions_for_tracks_and_repeated_rows_are_named(tmp_path: Path) -> None:
    rows, report = read(tmp_path, "1,7,10,20,4,5\n1,7,10.0,20,4,5\n2,3.5,1,2,3,4\n2,3.0,1,2,3,4\n")
    assert [row.track for row in rows] == [7, 7, 3]
    assert [(p.kind, p.line, p.fate) for p in report.problems] == [
        ("mot_row", 3, "dropped"),
        ("duplicate_object", 2, "kept"),
    ]
    assert "track 3.5 is no whole number" in report.problems[0].message
    assert report.problems[1].message == "track 7 in frame 1 as on line 1"


def test_empty_absent_and_binary_files(tmp_path: Path) -> None:
    assert read(tmp_path, "")[0] == []
    with pytest.raises(FileNotFoundError, match="no file of tracks"):
        read_mot_rows(tmp_path / "absent.txt", LabelReport())
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"b\.txt:1: no text in UTF-16.*; save the file as UTF-8"):
        read_mot_rows(tmp_path / "b.txt", LabelReport())
