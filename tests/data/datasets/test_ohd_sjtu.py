"""OHD-SJTU: lines with a head point, class names and numbers, and windows that move the head."""

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from rsd2.data.datasets import load_ohd_sjtu, make_virtual_tiles, register_ohd_sjtu
from rsd2.data.formats.label_report import LabelReport
from rsd2.data.windows.tiling import TilingParameters


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "rotation_txt").mkdir()
    for name in ("a", "b"):
        Image.new("RGB", (100, 70)).save(tmp_path / "images" / f"{name}.png")
    (tmp_path / "rotation_txt" / "a.txt").write_text(
        "10 10 40 10 40 20 10 20 40 15 ship 0\n60 40 80 40 80 60 60 60 70 40 Plane 1\n"
    )
    (tmp_path / "rotation_txt" / "b.txt").write_text("")
    return tmp_path


def test_objects_keep_their_heads(folder):
    records = load_ohd_sjtu(folder, "S", on_problem="error")
    assert [r["image_id"] for r in records] == ["a", "b"]
    ship, plane = records[0]["annotations"]
    assert (ship["category_id"], plane["category_id"]) == (0, 1)
    assert ship["head"] == [40, 15] and plane["head"] == [70, 40]
    assert ship["bbox"] == pytest.approx([25, 15, 30, 10, 0]) and plane["difficult"] == 1
    assert records[1]["annotations"] == []


def test_numbers_of_the_data_set_are_class_names_too(folder):
    (folder / "rotation_txt" / "a.txt").write_text(
        "10 10 40 10 40 20 10 20 40 15 2 0\n10 30 40 30 40 45 10 45 40 35 6\n"
    )

    def names(version, order):
        report = LabelReport()
        records = load_ohd_sjtu(folder, version, order=order, report=report)
        return [a["category_id"] for a in records[0]["annotations"]], report

    assert names("L", "official")[0] == [1, 5]  # ship 2, harbor 6, counted from 1
    assert names("L", "mutdet")[0] == [0, 4]
    found, report = names("S", "official")  # plane 2; there is no class 6
    assert found == [1]
    assert [(p.kind, p.line) for p in report.problems] == [("unknown_class", 2)]


def test_broken_lines_are_named(folder):
    with (folder / "rotation_txt" / "a.txt").open("a") as stream:
        stream.write("10 10 40 10 40 20 10 20 ship 0\n")
        stream.write("10 10 40 10 40 20 10 20 40 bow ship 0\n")
        stream.write("10 10 40 10 40 20 10 20 inf 15 ship 0\n")
        stream.write("10 10 40 10 40 20 10 20 40 15 ship 7\n")
    report = LabelReport()
    records = load_ohd_sjtu(folder, "S", report=report)
    assert len(records[0]["annotations"]) == 2
    assert [(p.kind, p.line) for p in report.problems] == [
        ("fields_with_head", 3),
        ("number", 4),
        ("non_finite", 5),
        ("difficult_flag", 6),
    ]
    assert "10 fields instead of 11 or more" in report.problems[0].message
    assert "it looks like DOTA text, which rsd2.data.datasets.load_dota_instances reads" in str(
        report.problems[0]
    )
    assert "head_x head_y" in report.summary()
    with pytest.raises(ValueError, match="versions 'S' and 'L', got 'M'"):
        load_ohd_sjtu(folder, "M")


def test_windows_move_the_head_and_clipping_keeps_it(folder):
    records = load_ohd_sjtu(folder, "S")
    parameters = TilingParameters(50, 10, min_object_fraction=1.0)
    tiles = make_virtual_tiles(records, parameters)
    seen = [
        (a["head"], a["poly"][:2], (t["tile"]["x"], t["tile"]["y"]))
        for t in tiles
        for a in t["annotations"]
    ]
    originals = {(40, 15, 10, 10), (70, 40, 60, 40)}
    assert seen
    for head, corner, (x, y) in seen:
        assert (head[0] + x, head[1] + y, corner[0] + x, corner[1] + y) in originals
    (folder / "rotation_txt" / "a.txt").write_text("-10 10 20 10 20 20 -10 20 20 15 ship 0\n")
    clipped = load_ohd_sjtu(folder, "S", out_of_image="clip")[0]["annotations"][0]
    assert min(clipped["poly"]) == 0 and clipped["head"] == [20, 15]


def test_registration(folder):
    try:
        register_ohd_sjtu("tiny_ohd", folder, "L", order="official")
        metadata = MetadataCatalog.get("tiny_ohd")
        assert metadata.thing_classes[0] == "small-vehicle" and metadata.evaluator_type == "dota"
        assert len(DatasetCatalog.get("tiny_ohd")) == 2
    finally:
        DatasetCatalog.remove("tiny_ohd")
        MetadataCatalog.remove("tiny_ohd")
