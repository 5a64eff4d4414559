"""Reading DOTA folders into dataset dicts; every defect is found with file and line."""

import logging
import pickle

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog, get_detection_dataset_dicts
from detectron2.structures import BoxMode
from PIL import Image

from rsd2.data.datasets import (
    DOTA_V1_0_CLASSES,
    DOTA_V1_5_CLASSES,
    DOTA_V2_0_CLASSES,
    load_dota_instances,
    register_dota_instances,
)
from rsd2.data.formats.label_report import LabelReport
from rsd2.data.formats.values import LARGEST_COORDINATE
from rsd2.data.windows.tile_writer import write_tiles
from rsd2.data.windows.tiling import TilingParameters
from rsd2.evaluation.scoring.dota import GroundTruth
from rsd2.structures import boxes_to_corners
from rsd2.testing import TINY_CLASSES, write_tiny_dota


@pytest.fixture
def folder(tmp_path):
    """Four images of 64 x 80, the last one without objects."""
    return write_tiny_dota(tmp_path, image_size=(64, 80))


@pytest.fixture
def register():
    """Register datasets for one test."""
    names = []

    def _register(name, *args, **options):
        register_dota_instances(name, *args, **options)
        names.append(name)

    yield _register
    for name in names:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def test_class_orders():
    assert len(DOTA_V1_0_CLASSES) == 15 and len(DOTA_V1_5_CLASSES) == 16
    assert len(DOTA_V2_0_CLASSES) == 18
    assert DOTA_V1_0_CLASSES[0] == "plane" and DOTA_V1_0_CLASSES[14] == "helicopter"
    assert DOTA_V2_0_CLASSES[15:] == ("container-crane", "airport", "helipad")


def test_dataset_dicts(folder):
    records = load_dota_instances(*folder, TINY_CLASSES)
    assert [r["image_id"] for r in records] == ["P0000", "P0001", "P0002", "P0003"]
    assert [len(r["annotations"]) for r in records] == [3, 3, 3, 0]
    record = records[0]
    assert (record["height"], record["width"]) == (64, 80)
    assert record["file_name"].endswith("images/P0000.png")
    lines = (folder[0] / "P0000.txt").read_text().splitlines()[2:]
    for line, annotation in zip(lines, record["annotations"]):
        assert annotation["bbox_mode"] is BoxMode.XYWHA_ABS
        assert annotation["difficult"] == annotation["iscrowd"] == 0
        assert annotation["poly"] == [float(v) for v in line.split()[:8]]
        assert TINY_CLASSES[annotation["category_id"]] == line.split()[8]
        corners = boxes_to_corners(torch.tensor(annotation["bbox"], dtype=torch.float64)).numpy()
        poly = np.array(annotation["poly"]).reshape(4, 2)
        distances = np.linalg.norm(corners[:, None] - poly[None], axis=-1)
        assert distances.min(1).max() < 0.02, "the labels are rounded to 0.01 pixels"
        cx, cy, w, h, angle = annotation["bbox"]
        assert w >= h and -90 <= angle < 90
    pickle.dumps(records)


def test_images_without_labels_folder_have_no_annotations(folder):
    records = load_dota_instances(None, folder[1], TINY_CLASSES)
    assert len(records) == 4 and all("annotations" not in r for r in records)


@pytest.mark.parametrize("extension", [".jpg", ".tif", ".bmp", ".PNG"])
def test_image_extensions(folder, extension):
    for path in folder[1].iterdir():
        Image.open(path).save(path.with_suffix(extension))
        if extension != ".PNG":
            path.unlink()
    records = load_dota_instances(*folder, TINY_CLASSES)
    assert len(records) == 4 and sum(len(r["annotations"]) for r in records) == 9


def test_every_defect_is_counted_with_file_and_line(folder, caplog):
    labels, images = folder
    with (labels / "P0000.txt").open("a") as stream:
        stream.write("1 2 3 ship 0\n")
        stream.write("0 0 10 0 10 10 0 10 submarine 0\n")
        stream.write("500 500 510 500 510 510 500 510 ship 0\n")
    (labels / "P0001.txt").unlink()
    (labels / "stray.txt").write_text("")
    (images / "P0002.png").write_bytes((images / "P0002.png").read_bytes()[:20])
    report = LabelReport()
    with caplog.at_level(logging.INFO):
        records = load_dota_instances(*folder, TINY_CLASSES, report=report)
    assert [r["image_id"] for r in records] == ["P0000", "P0001", "P0003"]
    found = {(p.kind, p.file.split("/")[-1], p.line, p.fate) for p in report.problems}
    assert found == {
        ("fields", "P0000.txt", 6, "dropped"),
        ("unknown_class", "P0000.txt", 7, "dropped"),
        ("outside_image", "P0000.txt", 8, "kept"),
        ("image_without_label", "P0001.png", None, "kept"),
        ("label_without_image", "stray.txt", None, "dropped"),
        ("unreadable_image", "P0002.png", None, "dropped"),
    }
    assert report.images == 4 and report.objects == sum(len(r["annotations"]) for r in records) == 4
    warnings = [r for r in caplog.records if r.levelno == logging.WARNING]
    assert len(warnings) == 1 and "P0000.txt:6" in warnings[0].getMessage()


def test_policies(folder):
    labels = folder[0]
    with (labels / "P0000.txt").open("a") as stream:
        stream.write("0 0 10 0 10 10 0 10 submarine 0\n")
        stream.write("500 500 510 500 510 510 500 510 ship 0\n")
    (labels / "P0001.txt").unlink()

    def count(**options):
        records = load_dota_instances(*folder, TINY_CLASSES, **options)
        return len(records), sum(len(r.get("annotations", [])) for r in records)

    assert count() == (4, 7)
    assert count(out_of_image="drop") == count(out_of_image="clip") == (4, 6)
    assert count(missing_label="drop") == (3, 7)
    quiet = LabelReport()
    assert count(unknown_class="ignore", out_of_image="ignore", report=quiet) == (4, 7)
    assert quiet.count("unknown_class") == quiet.count("outside_image") == 0
    for option, text in {
        "on_problem": "submarine",
        "unknown_class": "submarine",
        "out_of_image": r"P0000\.txt:7",
        "missing_label": "P0001",
    }.items():
        with pytest.raises(ValueError, match=rf"(?s){text}"):
            count(**{option: "error"})
        with pytest.raises(ValueError, match=f"{option} must be one of"):
            count(**{option: "typo"})


@pytest.mark.parametrize(
    "classes",
    ["ship", ("ship"), [], ["ship", "ship"], ["small  vehicle"], [" ship"], [""], [1], ["class 1"]],
)
def test_class_lists_that_cannot_be_meant(folder, classes):
    with pytest.raises(ValueError, match="[Cc]lass names"):
        load_dota_instances(*folder, classes)
    with pytest.raises(ValueError, match="[Cc]lass names"):
        register_dota_instances("never", {"thing_classes": classes}, *folder)
    assert "never" not in DatasetCatalog.list()


def test_the_error_for_a_string_shows_the_comma():
    with pytest.raises(ValueError, match=r"\('ship',\)"):
        register_dota_instances("never", {"thing_classes": ("ship")}, "a", "b")


def test_missing_and_mismatched_folders(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="no image folder .*absent"):
        load_dota_instances(folder[0], tmp_path / "absent", TINY_CLASSES)
    with pytest.raises(FileNotFoundError, match="no label folder .*absent"):
        load_dota_instances(tmp_path / "absent", folder[1], TINY_CLASSES)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no file ending in \.png"):
        load_dota_instances(folder[0], tmp_path / "empty", TINY_CLASSES)
    with pytest.raises(FileNotFoundError, match="None of the 0 label files"):
        load_dota_instances(tmp_path / "empty", folder[1], TINY_CLASSES)


def test_registration_is_lazy_and_fits_detectron2(folder, register):
    register("absent_set", {"thing_classes": ["ship"]}, "/nowhere/labelTxt", "/nowhere/images")
    with pytest.raises(FileNotFoundError, match="/nowhere/images"):
        DatasetCatalog.get("absent_set")
    register("tiny_set", {"thing_classes": list(TINY_CLASSES), "note": "mine"}, *folder)
    metadata = MetadataCatalog.get("tiny_set")
    assert metadata.evaluator_type == "dota" and metadata.note == "mine"
    assert metadata.labels_dir == str(folder[0]) and metadata.images_dir == str(folder[1])
    assert len(get_detection_dataset_dicts("tiny_set", filter_empty=False)) == 4
    assert len(get_detection_dataset_dicts(["tiny_set"], filter_empty=True)) == 3
    with pytest.raises(AssertionError, match="already registered"):
        register_dota_instances("tiny_set", {"thing_classes": ["ship"]}, *folder)


def test_one_file_of_another_format_is_reported_and_a_set_of_them_refused(folder, tmp_path):
    yolo = "0 0.10 0.10 0.50 0.10 0.50 0.30 0.10 0.30\n"
    (folder[0] / "P0001.txt").write_text(yolo)
    report = LabelReport()
    records = load_dota_instances(*folder, TINY_CLASSES, report=report)
    assert [len(r["annotations"]) for r in records] == [3, 0, 3, 0]
    assert report.count("foreign_format") == report.total == 1
    for path in folder[0].iterdir():
        path.write_text(yolo)
    with pytest.raises(ValueError, match=r"(?s)P0000\.txt:1: .*YOLO-OBB text .*convert-labels"):
        load_dota_instances(*folder, TINY_CLASSES, unknown_class="ignore")
    with pytest.raises(ValueError, match="(?s)images to cut: .*YOLO-OBB text"):
        write_tiles([folder[1]], [folder[0]], tmp_path / "t", TilingParameters(), progress=False)
    assert not (tmp_path / "t").exists()


def test_another_spelling_of_a_class_is_named(folder):
    (folder[0] / "P0000.txt").write_text("0 0 10 0 10 10 0 10 Small Vehicle 0\n")
    report = LabelReport()
    load_dota_instances(*folder, ["plane", "ship", "small-vehicle"], report=report)
    message = "class 'Small Vehicle' is not in the class list, which has 'small-vehicle'"
    assert message in [problem.message for problem in report.problems]
    (record, *_) = load_dota_instances(*folder, ["plane", "ship", "Small Vehicle"])
    assert record["annotations"][0]["category_id"] == 2


def test_what_a_reader_keeps_the_evaluator_takes(folder):
    for coordinate, count in ((LARGEST_COORDINATE * 0.99, 1), (LARGEST_COORDINATE, 0), (1e12, 0)):
        (folder[0] / "P0000.txt").write_text(f"0 0 {coordinate:.0f} 0 {coordinate:.0f} 9 0 9 ship")
        records = load_dota_instances(*folder, TINY_CLASSES)
        assert len(records[0]["annotations"]) == count
        GroundTruth.from_dicts(records, TINY_CLASSES)


def test_three_thousand_objects_in_one_image(tmp_path):
    (tmp_path / "l").mkdir()
    (tmp_path / "i").mkdir()
    Image.new("RGB", (4000, 4000)).save(tmp_path / "i" / "a.bmp")
    rng = np.random.default_rng(0)
    rows = rng.uniform(0, 3990, (3000, 1, 2)) + np.array([[0, 0], [9, 0], [9, 3], [0, 3]])
    lines = [" ".join(f"{v:.1f}" for v in row.reshape(-1)) + " ship 0" for row in rows]
    (tmp_path / "l" / "a.txt").write_text("\n".join(lines))
    (record,) = load_dota_instances(tmp_path / "l", tmp_path / "i", ["ship"], on_problem="error")
    assert len(record["annotations"]) == 3000


def test_real_sample(dota_sample):
    (record,) = load_dota_instances(
        dota_sample / "labelTxt", dota_sample / "images", DOTA_V1_0_CLASSES, on_problem="error"
    )
    assert (record["height"], record["width"], len(record["annotations"])) == (557, 712, 64)
    assert {a["category_id"] for a in record["annotations"]} == {4, 5}


def test_real_defective_sample_has_no_label_without_complaint(dota_defective):
    report = LabelReport()
    load_dota_instances(
        dota_defective / "labelTxt", dota_defective / "images", DOTA_V1_0_CLASSES, report=report
    )
    assert sorted((p.line, p.kind) for p in report.problems) == [
        (1, "outside_image"),
        (2, "outside_image"),
        (3, "outside_image"),
        (4, "self_crossing"),
    ]


def test_generated_labels_that_do_not_fit_their_image(tmp_path):
    labels, images = write_tiny_dota(tmp_path, num_images=1)
    (labels / "P0000.txt").write_text(
        "98 16 98 -6 164 -2 165 18 plane 0\n"
        "113 142 114 124 213 129 213 148 plane 1\n"
        "50 20 80 20 80 30 50 30 plane 0\n"
        "26 11 28 21 23 18 51 19 plane 0\n"
    )
    for policy, kept in {"keep": 4, "clip": 2, "drop": 1}.items():
        report = LabelReport()
        (record,) = load_dota_instances(
            labels, images, TINY_CLASSES, out_of_image=policy, report=report
        )
        assert len(record["annotations"]) == kept
        assert [(p.line, p.kind) for p in report.problems] == [
            (4, "self_crossing"),
            (1, "outside_image"),
            (2, "outside_image"),
            (3, "crossing_border"),
        ]
        if policy == "clip":
            assert record["annotations"][0]["poly"] == [50, 20, 64, 20, 64, 30, 50, 30]
    with pytest.raises(ValueError, match=r"P0000\.txt:3"):
        load_dota_instances(labels, images, TINY_CLASSES, out_of_image="error")
