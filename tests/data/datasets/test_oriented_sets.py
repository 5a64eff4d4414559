"""HRSC2016, FAIR1M and SODA-A: their folders, classes, heads and regions, from files made anew."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from rsd2.data.class_orders import class_order
from rsd2.data.datasets import (
    load_fair1m,
    load_hrsc2016,
    load_soda_a,
    make_virtual_tiles,
    register_soda_a,
    register_virtual_tiles,
)
from rsd2.data.formats.label_report import LabelReport
from rsd2.data.windows.tiling import TilingParameters
from rsd2.evaluation import SodaEvaluator
from tests.data.formats.published_labels import HEIGHT, TURNED, WIDTH
from tests.evaluation.cases import model_output

FLAT = [value for point in TURNED for value in point]


def put(root: Path, files: dict[str, str], images: list[str]) -> Path:
    for name in [*files, *images]:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
    for name in images:
        Image.new("RGB", (WIDTH, HEIGHT)).save(root / name)
    for name, text in files.items():
        (root / name).write_text(text, encoding="utf-8")
        (root / f"{name}.png.aux.xml").write_text("<PAMDataset/>")
    return root


def hrsc_ship(number: int, head: str = "<header_x>77</header_x><header_y>60</header_y>") -> str:
    box = "".join(
        f"<mbox_{tag}>{value}</mbox_{tag}>"
        for tag, value in zip(("cx", "cy", "w", "h", "ang"), (60, 50, 40, 20, np.pi / 6))
    )
    return (
        f"\n<HRSC_Object><Class_ID>1000000{number:02d}</Class_ID><difficult>1</difficult>"
        f"{box}{head}</HRSC_Object>"
    )


def hrsc_file(*ships: str) -> str:
    size = f"<Img_SizeWidth>{WIDTH}</Img_SizeWidth><Img_SizeHeight>{HEIGHT}</Img_SizeHeight>"
    return f"<HRSC_Image>{size}<HRSC_Objects>{''.join(ships)}\n</HRSC_Objects></HRSC_Image>"


@pytest.fixture
def hrsc(tmp_path: Path) -> Path:
    ships = hrsc_ship(7), hrsc_ship(1, "").replace("<mbox_cx>60", "<mbox_cx>130")
    full = "FullDataSet"
    files = {
        f"{full}/Annotations/100000002.xml": hrsc_file(*ships),
        f"{full}/Annotations/100000001.xml": hrsc_file(),
        "ImageSets/trainval.txt": "100000002\r\n100000001\r\n",
        "ImageSets/test.txt": "100000001\n100000009\n",
    }
    images = [f"{full}/AllImages/10000000{k}.bmp" for k in (1, 2, 3)]
    return put(tmp_path, files, images)


def fair1m_object(name: str, points: list) -> str:
    rows = "".join(f"<point>{x},{y}</point>" for x, y in [*points, points[0]])
    return (
        f"\n<object><coordinate>pixel</coordinate><possibleresult><name>{name}</name>"
        f"</possibleresult><points>{rows}</points></object>"
    )


@pytest.fixture
def fair1m(tmp_path: Path) -> Path:
    def text(*objects: str) -> str:
        return f"<annotation><objects>{''.join(objects)}\n</objects></annotation>"

    upright = [[100, 10], [120, 10], [120, 20], [100, 20]]
    files = {
        "train/part1/labelXml/0.xml": text(
            fair1m_object("Passenger Ship", TURNED), fair1m_object("dry-cargo-ship", upright)
        ),
        "train/part2/labelXml/9.xml": text(fair1m_object("A220", TURNED)),
        "validation/labelXml/1.xml": text(fair1m_object("Bridge", TURNED)),
    }
    images = [*files, "test/images/0.xml"]
    return put(tmp_path, files, [p.replace("labelXml", "images")[:-3] + "tif" for p in images])


@pytest.fixture
def soda(tmp_path: Path) -> Path:
    names = [*class_order("soda_a"), "ignore"]
    annotations = [
        {"id": 1, "category_id": 4, "poly": FLAT},
        {"id": 2, "category_id": 9, "poly": [100, 10, 190, 10, 190, 60, 100, 60]},
    ]
    content = {
        "images": {"file_name": "00001.jpg", "height": HEIGHT, "width": WIDTH, "id": 1},
        "annotations": annotations,
        "categories": [{"id": k, "name": name} for k, name in enumerate(names)],
    }
    text = json.dumps(content, indent=0)
    files = {f"{split}/Annotations/00001.json": text for split in ("train", "val")}
    images = [f"{split}/Images/00001.jpg" for split in ("train", "val")]
    return put(tmp_path, files, images)


def test_ships_keep_the_bow_and_one_class_holds_all_types(hrsc: Path) -> None:
    records = load_hrsc2016(hrsc, "trainval", on_problem="error")
    assert [r["image_id"] for r in records] == ["100000002", "100000001"]
    assert (records[0]["height"], records[0]["width"]) == (HEIGHT, WIDTH)
    ship, other = records[0]["annotations"]
    np.testing.assert_allclose(ship["poly"], FLAT, atol=1e-4)
    assert ship["bbox"] == pytest.approx([60, 50, 40, 20, -30], abs=1e-3)
    assert (ship["head"], ship["difficult"], ship["category_id"]) == ([77, 60], 1, 0)
    assert "head" not in other and records[1]["annotations"] == []

    types = load_hrsc2016(hrsc, "trainval", types=True)[0]["annotations"]
    assert [class_order("hrsc2016_types")[a["category_id"]] for a in types] == [
        *("Arleigh Burke", "ship")
    ]
    report = LabelReport()
    assert len(load_hrsc2016(hrsc, "test", report=report)) == 1
    assert [(p.kind, p.line) for p in report.problems] == [("listed_without_image", 2)]


def test_windows_move_the_bow_and_the_regions_stay_where_they_are(hrsc: Path, soda: Path) -> None:
    tiling = TilingParameters(window=100, overlap=20)
    tiles = make_virtual_tiles(load_hrsc2016(hrsc, "trainval"), tiling)
    for tile in tiles:
        for annotation in tile["annotations"]:
            if "head" in annotation:
                x, y = tile["tile"]["x"], tile["tile"]["y"]
                assert annotation["head"] == [77 - x, 60 - y]
    assert sum("head" in a for t in tiles for a in t["annotations"]) >= 1
    for tile in make_virtual_tiles(load_soda_a(soda, "val"), tiling):
        assert tile["ignore_regions"] == [[100, 10, 190, 10, 190, 60, 100, 60]]


def test_fine_classes_in_any_spelling_and_their_groups(fair1m: Path) -> None:
    records = load_fair1m(fair1m, "train", on_problem="error")
    assert [r["image_id"] for r in records] == ["0", "9"]
    names = class_order("fair1m")
    found = [[names[a["category_id"]] for a in r["annotations"]] for r in records]
    assert found == [["Passenger Ship", "Dry Cargo Ship"], ["A220"]]
    assert len(set(names)) == 37
    groups = [
        class_order("fair1m_coarse")[a["category_id"]]
        for r in load_fair1m(fair1m, "train", coarse=True)
        for a in r["annotations"]
    ]
    assert groups == ["ship", "ship", "airplane"]
    assert "annotations" not in load_fair1m(fair1m, "test")[0]
    assert len(load_fair1m(fair1m, "val")[0]["annotations"]) == 1


def test_two_parts_may_not_share_a_name(fair1m: Path) -> None:
    for folder, ending in (("images", "tif"), ("labelXml", "xml")):
        first = fair1m / "train" / "part1" / folder / f"0.{ending}"
        (fair1m / "train" / "part2" / folder / f"0.{ending}").write_bytes(first.read_bytes())
    report = LabelReport()
    records = load_fair1m(fair1m, "train", report=report)
    assert [r["image_id"] for r in records] == ["0", "9"] and report.images == 2
    assert "part1" in records[0]["file_name"]
    kinds = [p.kind for p in report.problems]
    assert kinds == ["duplicate_image", "label_without_image"]


def test_regions_to_be_ignored_are_no_objects(soda: Path) -> None:
    (record,) = load_soda_a(soda, "train", on_problem="error")
    (ship,) = record["annotations"]
    assert class_order("soda_a")[ship["category_id"]] == "ship"
    np.testing.assert_allclose(ship["poly"], FLAT, atol=1e-4)
    assert record["ignore_regions"] == [[100, 10, 190, 10, 190, 60, 100, 60]]


SHIP_FILE, AIRPLANE_FILE = "FullDataSet/Annotations/100000002.xml", "train/part1/labelXml/0.xml"
REGION_FILE = "train/Annotations/00001.json"


@pytest.mark.parametrize(
    ("load", "fixture", "place", "old", "new", "kind", "line"),
    [
        (load_hrsc2016, "hrsc", SHIP_FILE, ">40<", ">x<", "label_entry", 2),
        (load_hrsc2016, "hrsc", SHIP_FILE, ">40<", ">nan<", "non_finite", 2),
        (load_hrsc2016, "hrsc", SHIP_FILE, "<mbox_w>", "<mbox_v>", "xml", 2),
        (load_fair1m, "fair1m", AIRPLANE_FILE, "82.3", "x", "label_entry", 2),
        (load_fair1m, "fair1m", AIRPLANE_FILE, "Passenger", "Rail", "unknown_class", 2),
        (load_soda_a, "soda", REGION_FILE, '"poly"', '"polygon"', "label_entry", None),
    ],
)  # fmt: skip
def test_defects_are_named_with_file_and_line(
    load, fixture, place, old, new, kind, line, request
) -> None:
    root, report = request.getfixturevalue(fixture), LabelReport()
    split = "trainval" if fixture == "hrsc" else "train"
    (root / place).write_text((root / place).read_text().replace(old, new, 1))
    try:
        load(root, split, report=report)
    except ValueError as error:  # the file was the only one with objects
        assert kind == "xml" and "Problems in the labels" in str(error)
    (problem,) = report.problems
    assert (problem.kind, problem.line) == (kind, line) and problem.file.endswith(place)


@pytest.mark.parametrize(
    ("load", "fixture", "place", "old"),
    [
        (load_hrsc2016, "hrsc", SHIP_FILE, "<Img_SizeWidth>200"),
        (load_fair1m, "fair1m", AIRPLANE_FILE, "<annotation>"),
        (load_soda_a, "soda", REGION_FILE, '"width": 200'),
    ],
)
def test_labels_of_another_size_are_named(load, fixture, place, old, request) -> None:
    root, report = request.getfixturevalue(fixture), LabelReport()
    new = old.replace("200", "400") + "<size><height>100</height><width>400</width></size>" * (
        fixture == "fair1m"
    )
    (root / place).write_text((root / place).read_text().replace(old, new, 1))
    records = load(root, "trainval" if fixture == "hrsc" else "train", report=report)
    (problem,) = report.problems
    assert (problem.kind, problem.fate) == ("image_size", "kept") and problem.file.endswith(place)
    assert "400 x 100 pixels, the image has 200 x 100" in problem.message
    assert problem.line == (None if fixture == "soda" else 1)
    assert {record["width"] for record in records} == {WIDTH}


@pytest.mark.parametrize(("load", "name"), [
    (load_hrsc2016, "HRSC2016"), (load_fair1m, "FAIR1M"), (load_soda_a, "SODA-A"),
])  # fmt: skip
def test_missing_folders_and_unknown_splits_are_named(load, name, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"{name} has no split 'all'; it has train, "):
        load(tmp_path, "all")
    with pytest.raises(FileNotFoundError, match=r"README\.md shows"):
        load(tmp_path, "train")


def test_windows_are_scored_on_whole_images_as_the_authors_do(soda: Path, tmp_path: Path) -> None:
    whole, windows = "soda_of_a_test", "soda_of_a_test_windows"
    register_soda_a(whole, soda, "val", metadata={"note": "mine"})
    register_virtual_tiles(windows, whole, window=120, overlap=80)
    try:
        assert MetadataCatalog.get(whole).thing_classes == list(class_order("soda_a"))
        assert MetadataCatalog.get(whole).note == "mine"
        evaluator = SodaEvaluator(windows, output_dir=tmp_path / "out", distributed=False)
        evaluator.reset()
        seen = 0
        for tile in DatasetCatalog.get(windows):
            boxes = [a["bbox"] for a in tile["annotations"]]
            classes = [a["category_id"] for a in tile["annotations"]]
            size = tile["height"], tile["width"]
            evaluator.process([tile], [model_output(boxes, [0.9] * len(boxes), classes, size, 5)])
            seen += len(boxes)
        result = evaluator.evaluate()["bbox"]

        # The submission beside the scores is scored alike.
        again = SodaEvaluator(whole, distributed=False)
        again.process_file(tmp_path / "out" / "Task1.zip")
        assert again.evaluate()["bbox"] == pytest.approx(result, nan_ok=True)

        only = SodaEvaluator(
            whole, output_dir=tmp_path / "only", distributed=False, format_only=True
        )
        only.process_file(tmp_path / "out" / "Task1.zip")
        assert only.evaluate() == {}
        assert [path.name for path in (tmp_path / "only").iterdir()] == ["Task1.zip"]
    finally:
        for name in (windows, whole):
            DatasetCatalog.remove(name)
            MetadataCatalog.remove(name)

    # Two windows show the ship of 800 square pixels, and merging leaves one detection.
    assert seen == 2
    assert result["AP"] == result["AP_gS"] == result["AR"] == pytest.approx(100)
    assert np.isnan(result["AP_eS"]) and result["AP-ship"] == pytest.approx(100)
    record = json.loads((tmp_path / "out" / "metrics_soda_a.json").read_text())
    assert record["protocol"]["merge_nms_iou_threshold"] == 0.5
    assert record["protocol"]["max_detections_per_image_and_class"] == 20_000
    assert record["counts"]["objects_that_count"] == 1


def test_windows_of_the_built_in_sets_know_their_whole_images() -> None:
    for name in ("soda_a_val_800_150", "fair1m_val_1024_200", "fair1m_val_coarse_1024_200"):
        source = MetadataCatalog.get(f"{name}_virtual").source_dataset
        assert source == name.rsplit("_", 2)[0] and source in DatasetCatalog.list()
    assert len(MetadataCatalog.get("hrsc2016_trainval_types").thing_classes) == 31
