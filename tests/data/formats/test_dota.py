"""Label files: what is tolerated, what is reported, what is written back."""

import numpy as np
import pytest

from rsd2.data.formats.dota import (
    DotaLabels,
    apply_border_policy,
    check_dota_class_names,
    find_images,
    find_labels,
    format_dota_labels,
    read_dota_labels,
)
from rsd2.data.formats.label_report import LabelReport
from rsd2.io.files import write_atomically

LINE = "0 0 10 0 10 5 0 5 ship 1"
OTHER_LINE = "0 0 20 0 20 5 0 5 ship 1"


def _read(tmp_path, content):
    path = tmp_path / "a.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    report = LabelReport()
    return read_dota_labels(path, report), report


@pytest.mark.parametrize(
    "content",
    [
        LINE,
        f"imagesource:GoogleEarth\ngsd:0.146\n{LINE}\n",
        f"imagesource:GoogleEarth\r\ngsd:null\r\n{LINE}\r\n",
        b"\xef\xbb\xbf" + f"imagesource:None\ngsd:None\n\n{LINE}\n\n".encode(),
        f"\ufeff{LINE}",
        LINE.replace(" ", "\t"),
    ],
)
def test_headers_bom_line_ends_and_blank_lines(tmp_path, content):
    labels, report = _read(tmp_path, content)
    assert report.total == 0 and labels.names == ["ship"] and labels.difficult.tolist() == [1]
    assert labels.polygons.tolist() == [[[0, 0], [10, 0], [10, 5], [0, 5]]]


def test_missing_difficult_flag_is_zero_and_vertices_keep_their_order(tmp_path):
    labels, report = _read(tmp_path, "10 5 0 5 0 0 10 0 ship")
    assert report.total == 0 and labels.difficult.tolist() == [0]
    assert labels.polygons[0, 0].tolist() == [10, 5]


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("0 0 10 0 10 5 0 5", "fields"),
        ("0,0,10,0,10,5,0,5,ship,0", "fields"),
        ("0 0 10 0 10 5 0 x ship 0", "number"),
        ("0 0 10 0 10 5 0 nan ship 0", "non_finite"),
        ("0 0 10 0 10 5 0 inf ship 0", "non_finite"),
        ("0 0 1e12 0 1e12 5 0 5 ship 0", "non_finite"),
        ("0 0 1_0 0 10 5 0 5 ship 0", "number"),
        ("0 0 10 0 10 5 0 5 3 0", "class_number"),
        ("0 0 10 0 10 5 0 5 6 ship 0", "class_number"),
        ("0 0 10 0 10 5 0 5 ship 7", "difficult_flag"),
        ("0 0 10 0 10 5 0 5 ship 0.5", "difficult_flag"),
        ("5 5 5 5 5 5 5 5 ship 0", "zero_area"),
        ("0 0 10 0 20 0 5 0 ship 0", "zero_area"),
        ("0 0 10 10 20 20 30 30 ship 0", "zero_area"),
    ],
)
def test_broken_lines_are_reported_with_their_number_and_the_rest_is_read(tmp_path, line, kind):
    labels, report = _read(tmp_path, f"gsd:1\n{LINE}\n{line}\n{OTHER_LINE}\n")
    assert len(labels) == 2 and labels.lines.tolist() == [2, 4]
    assert [(p.kind, p.line, p.fate) for p in report.problems] == [(kind, 3, "dropped")]
    assert report.problems[0].file.endswith("a.txt")


def test_class_names_may_have_blanks_and_flags_a_decimal_point(tmp_path):
    shape = "{} 0 40 0 40 5 {} 5"
    ends = ["Dump Truck", "Dump Truck 1", "Dump Truck 1.0", "ship 0.0", "tank +2", "nan 1", "A380"]
    lines = [f"{shape.format(k, k)} {end}" for k, end in enumerate(ends)]
    labels, report = _read(tmp_path, "\n".join(lines))
    assert report.total == 0
    assert labels.names == ["Dump Truck"] * 3 + ["ship", "tank", "nan", "A380"]
    assert labels.difficult.tolist() == [0, 1, 1, 0, 2, 1, 0]
    text = format_dota_labels(labels.polygons, labels.names, labels.difficult)
    again, _ = _read(tmp_path, text)
    assert again.names == labels.names and (again.difficult == labels.difficult).all()


def test_numbers_are_class_names_where_the_class_list_has_them(tmp_path):
    text = f"{LINE.replace('ship', '3')}\n{OTHER_LINE.replace('ship', '4 wheels')}\n"
    assert len(_read(tmp_path, text)[0]) == 0
    report = LabelReport()
    labels = read_dota_labels(tmp_path / "a.txt", report, class_names=["3", "4 wheels"])
    assert labels.names == ["3", "4 wheels"] and report.total == 0
    check_dota_class_names(labels.names)
    with pytest.raises(ValueError, match=r"\['tank 2'\] end in a word .*difficult flag.*'class-1'"):
        check_dota_class_names(["tank 2"])


def test_repeated_lines_are_reported_and_kept(tmp_path):
    labels, report = _read(tmp_path, f"{LINE}\n{OTHER_LINE}\n{LINE.replace('10', '10.0')}\n")
    assert len(labels) == 3
    (problem,) = report.problems
    assert (problem.kind, problem.line, problem.fate) == ("duplicate_object", 3, "kept")
    assert problem.message == "ship (0 0 10 0 10 5 0 5) as on line 1"


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("0 0.10 0.10 0.50 0.10 0.50 0.30 0.10 0.30", "YOLO-OBB text (class number, then corners"),
        ("7 0.10 0.10 0.50 0.10 0.50 0.30 0.10 0.30", "YOLO-OBB text"),
        ("0 0.10 0.10 0.50 0.10 0.50 0.30 0.10 0.30 12", "YOLO-OBB text"),
        ("3 0.5 0.5 0.1 0.2", "YOLO text (upright boxes divided by width and height)"),
        ("3 0.5 0.5 0.1 0.2 0.3 0.4 0.3 0.6 0.5 0.6 0.7", "YOLO segmentation text"),
        ("0.1 0.1 0.5 0.1 0.5 0.3 0.1 0.3 ship 0", "normalized labels (coordinates divided by"),
        ("1.003 0.1 0.5 -.01 0.5 0.3 0.1 0.3 ship 0", "normalized labels"),
        (
            "10 10 40 10 40 20 10 20 40 15 ship 0",
            "OHD-SJTU text, which rsd2.data.datasets.load",
        ),
        ("P0001 0.9 10 10 40 10 40 20 10 20", "DOTA Task 1 results, which rsd2.evaluation.files."),
        ("1,7,10,20,4,5,1,1,-1,-1", "rows of tracks, which rsd2.data.formats.mot.read_mot_rows"),
        ("<annotation>", "XML, which rsd2 does not read yet"),
        ('{"shapes": []}', "JSON"),
        ("<!DOCTYPE html>", "a web page"),
        (
            "version https://git-lfs.github.com/spec/v1",
            "a pointer of Git LFS, which 'git lfs",
        ),
    ],
)
def test_lines_of_other_formats_are_told(tmp_path, line, name):
    labels, report = _read(tmp_path, f"{LINE}\n{line}\n")
    assert len(labels) == 1
    (problem,) = report.problems
    assert (problem.kind, problem.line) == ("foreign_format", 2)
    assert f"it looks like {name}" in problem.message


def test_an_object_of_one_pixel_in_the_corner_is_no_other_format(tmp_path):
    labels, report = _read(tmp_path, "0 0 1 0 1 1 0 1 ship 0\n0 0 1 0 1 2.5 0 2.5 ship 0\n")
    assert len(labels) == 2 and report.total == 0


def test_label_files_are_found_whatever_the_case_of_their_ending(tmp_path):
    for name in ("a.TXT", "b.txt", "b.Txt", "c.txt", ".d.txt"):
        (tmp_path / name).write_text("")
    report = LabelReport()
    found = find_labels(tmp_path, ["a", "b", "z"], report)
    assert {name: path.name for name, path in found.items()} == {"a": "a.TXT", "b": "b.txt"}
    problems = [(p.kind, p.file.split("/")[-1]) for p in report.problems]
    assert problems == [("duplicate_label", "b.Txt"), ("label_without_image", "c.txt")]


VOC = "<annotation><object><bndbox><xmin>1</xmin></bndbox></object></annotation>"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        (
            "a.xml",
            VOC,
            r"1 files \(1 of \.xml\); a\.xml: .*Pascal VOC XML, which rsd2\.",
        ),
        (
            "a.json",
            '{"shapes": []}',
            r"\(1 of \.json\); .*LabelMe or X-AnyLabeling JSON, which rsd",
        ),
        ("b.txt", "0 0.1 0.1 0.5 0.1 0.5 0.3 0.1 0.3", r"\(1 of \.txt\); b\.txt: .*YOLO-OBB text"),
        ("b.txt", LINE, r"b\.txt: it looks like DOTA text"),
        ("a.mat", "", r"It holds 1 files \(1 of \.mat\)\."),
        (".hidden", "", r"It is empty\."),
    ],
)
def test_a_folder_of_other_labels_says_what_is_there(tmp_path, name, content, words):
    (tmp_path / name).write_text(content)
    with pytest.raises(FileNotFoundError, match=f"None of the . label files .*{words}"):
        find_labels(tmp_path, ["a"], LabelReport())


def test_self_crossing_is_reported_and_kept(tmp_path):
    labels, report = _read(
        tmp_path, f"{LINE}\n0 0 10 10 10 0 0 10 ship 0\n0 0 10 0 0 5 10 5 ship 0"
    )
    assert len(labels) == 3
    assert [(p.kind, p.line, p.fate) for p in report.problems] == [
        ("self_crossing", 2, "kept"),
        ("self_crossing", 3, "kept"),
    ]


def test_one_pixel_thin_and_huge_objects_are_no_problem(tmp_path):
    text = "3 3 4 3 4 4 3 4 a 0\n0 0 500 0 500 .5 0 .5 b 0\n0 0 30000 0 30000 30000 0 30000 c 2"
    labels, report = _read(tmp_path, text)
    assert len(labels) == 3 and report.total == 0


def test_unreadable_file_is_reported(tmp_path):
    report = LabelReport()
    assert len(read_dota_labels(tmp_path / "absent.txt", report)) == 0
    assert report.count("unreadable_label") == 1
    labels, report = _read(tmp_path, b"\x89PNG\r\n\x1a\n\x00\xff\xfe binary")
    assert len(labels) == 0 and report.count("unreadable_label") == report.total == 1
    assert report.problems[0].line == 3 and "binary data" in report.problems[0].message


def _labels(*polygons):
    count = len(polygons)
    return DotaLabels(
        np.array(polygons, float).reshape(-1, 4, 2),
        ["ship"] * count,
        np.zeros(count, int),
        np.arange(1, count + 1),
    )


INSIDE = [10, 10, 20, 10, 20, 20, 10, 20]
CROSSING = [90, 10, 110, 10, 110, 20, 90, 20]
OUTSIDE = [200, 10, 210, 10, 210, 20, 200, 20]
ON_EDGE = [90, 10, 100.5, 10, 100.5, 20, 90, 20]


@pytest.mark.parametrize(
    ("policy", "count", "fates"),
    [
        ("keep", 4, ["kept", "kept"]),
        ("error", 4, ["kept", "kept"]),
        ("clip", 3, ["clipped", "dropped"]),
        ("drop", 2, ["dropped", "dropped"]),
    ],
)
def test_border_policies(policy, count, fates):
    report = LabelReport()
    labels = _labels(INSIDE, CROSSING, OUTSIDE, ON_EDGE)
    result = apply_border_policy(labels, (100, 100), policy, "a.txt", report)
    assert len(result) == count
    found = [(p.kind, p.line, p.fate) for p in report.problems]
    assert found == [("crossing_border", 2, fates[0]), ("outside_image", 3, fates[1])]
    assert "50% of it" in report.problems[0].message and "100 x 100" in report.problems[0].message
    if policy == "clip":
        np.testing.assert_allclose(
            result.polygons[1].reshape(-1), [90, 10, 100, 10, 100, 20, 90, 20]
        )
    assert labels.polygons[1, 1, 0] == 110, "the input is not changed"


def test_border_policy_without_objects():
    report = LabelReport()
    assert len(apply_border_policy(DotaLabels.empty(), (5, 5), "clip", "a", report)) == 0
    assert report.total == 0


def test_written_lines_read_back_exactly(tmp_path):
    rng = np.random.default_rng(0)
    polygons = np.round(rng.uniform(-50, 5000, (20, 4, 2)), 3)
    text = format_dota_labels(polygons, ["ship"] * 20, np.arange(20) % 3)
    labels, report = _read(tmp_path, text)
    assert (labels.polygons == polygons).all() and (labels.difficult == np.arange(20) % 3).all()
    assert format_dota_labels(np.zeros((0, 4, 2)), [], np.zeros(0)) == ""
    assert format_dota_labels(np.array([INSIDE]), ["a"], [0]) == "10 10 20 10 20 20 10 20 a 0\n"


def test_image_of_two_extensions_is_reported_and_hidden_files_are_not_images(tmp_path):
    for name in ("a.png", "a.jpg", "B.TIF", "._a.png", "notes.txt", "c.bmp"):
        (tmp_path / name).write_bytes(b"")
    report = LabelReport()
    images = find_images(tmp_path, report)
    assert [path.name for path in images.values()] == ["B.TIF", "a.png", "c.bmp"]
    assert [(p.kind, p.file.split("/")[-1]) for p in report.problems] == [
        ("duplicate_image", "a.jpg")
    ]


def test_atomic_write_replaces_and_leaves_nothing_else(tmp_path):
    write_atomically(tmp_path / "a", b"1")
    write_atomically(tmp_path / "a", b"2")
    assert [p.name for p in tmp_path.iterdir()] == ["a"] and (tmp_path / "a").read_bytes() == b"2"
