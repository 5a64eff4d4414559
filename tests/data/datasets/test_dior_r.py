"""DIOR-R: its folders, its XML, its mixed-case names, both class orders, and broken files."""

import logging

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Instances, RotatedBoxes
from PIL import Image

from rsd2.data.class_orders import class_order
from rsd2.data.datasets import load_dior_r, register_dior_r
from rsd2.data.formats.label_report import LabelReport
from rsd2.evaluation import DotaEvaluator

CORNERS = ("left_top", "right_top", "right_bottom", "left_bottom")


def xml_object(name, points, extra="<difficult>0</difficult>"):
    """One object on the lines of the real files; the first line is that of <object>."""
    corners = "\n".join(
        f"      <{axis}_{corner}>{value}</{axis}_{corner}>"
        for corner, point in zip(CORNERS, points)
        for axis, value in zip("xy", point)
    )
    return (
        f"  <object>\n    <name>{name}</name>\n    {extra}\n    <angle>0</angle>\n"
        f"    <robndbox>\n{corners}\n    </robndbox>\n  </object>\n"
    )


def xml_file(name, *objects):
    head = f"<annotation>\n  <filename>{name}.jpg</filename>\n"
    size = "  <size><width>80</width><height>60</height><depth>3</depth></size>\n"
    return head + size + "".join(objects) + "</annotation>\n"


SHIP = ((10, 20), (40, 10), (43, 19), (13, 29))
DAM = ((5, 5), (25, 5), (25, 15), (5, 15))


@pytest.fixture
def root(tmp_path):
    """Three images of 80 x 60 to train on, the last without objects, one to test on."""
    labels = tmp_path / "Annotations" / "Oriented Bounding Boxes"
    lists = tmp_path / "ImageSets" / "Main"
    for folder in (labels, lists):
        folder.mkdir(parents=True)
    for name in ("00001", "00002", "00003", "11726"):
        folder = tmp_path / f"JPEGImages-{'test' if name == '11726' else 'trainval'}"
        folder.mkdir(exist_ok=True)
        Image.new("RGB", (80, 60)).save(folder / f"{name}.jpg")
    area = xml_object("Expressway-Service-area", DAM)
    (labels / "00001.xml").write_text(xml_file("00001", xml_object("ship", SHIP), area))
    (labels / "00002.xml").write_text(xml_file("00002", xml_object("dam", DAM)))
    (labels / "00003.xml").write_text(xml_file("00003"))
    (labels / "11726.xml").write_text(xml_file("11726", xml_object("Ship", SHIP)))
    (lists / "train.txt").write_text("00002\n00001\n")
    (lists / "val.txt").write_text("00003\n")
    (lists / "test.txt").write_text("11726\n")
    return tmp_path


@pytest.fixture
def register():
    names = []

    def run(name, *arguments, **options):
        register_dior_r(name, *arguments, **options)
        names.append(name)

    yield run
    for name in names:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def test_splits_annotations_and_order_of_the_list(root):
    records = load_dior_r(root, "trainval", on_problem="error")
    assert [r["image_id"] for r in records] == ["00002", "00001", "00003"]
    assert [len(r["annotations"]) for r in records] == [1, 2, 0]
    ship, area = records[1]["annotations"]
    assert ship["poly"] == [10, 20, 40, 10, 43, 19, 13, 29]
    assert (ship["difficult"], ship["iscrowd"]) == (0, 0)
    # the sides are sqrt(30^2 + 10^2) and sqrt(3^2 + 9^2); it rises by atan(10 / 30) on screen
    expected = [26.5, 19.5, 31.6228, 9.4868, np.degrees(np.arctan2(10, 30))]
    np.testing.assert_allclose(ship["bbox"], expected, atol=1e-3)
    names = class_order("dior_r")
    assert names[ship["category_id"]] == "ship"
    assert names[area["category_id"]] == "expressway-service-area"
    assert (records[1]["height"], records[1]["width"]) == (60, 80)
    assert [r["image_id"] for r in load_dior_r(root, "val")] == ["00003"]
    assert [len(r["annotations"]) for r in load_dior_r(root, "test")] == [1]


def test_a_stated_size_unlike_the_image_is_named(root):
    path = root / "Annotations" / "Oriented Bounding Boxes" / "00003.xml"
    path.write_text(path.read_text().replace("<width>80", "<width>160"))
    with pytest.raises(ValueError, match=r"(?s)image_size.*00003\.xml.*160 x 60 .* has 80 x 60"):
        load_dior_r(root, "val", on_problem="error")


def test_lists_name_images_by_paths_in_any_encoding(root):
    names = "./00002\r\nJPEGIMAGES-trainval/../00001.JPG\r\n"
    (root / "ImageSets" / "Main" / "train.txt").write_text(names, encoding="utf-16")
    records = load_dior_r(root, "train", on_problem="error")
    assert [r["image_id"] for r in records] == ["00002", "00001"]


def test_orders_differ_in_the_dam_alone(root):
    def ids(order):
        records = load_dior_r(root, "train", order=order)
        return [a["category_id"] for r in records for a in r["annotations"]]

    assert ids("mutdet") == ids("rsd2") == [6, 13, 7]
    assert ids("ars_detr") == [8, 13, 6]
    with pytest.raises(ValueError, match="no class order 'official' of dior_r"):
        load_dior_r(root, "train", order="official")


def test_every_defect_is_counted_with_file_and_line(root, caplog):
    labels = root / "Annotations" / "Oriented Bounding Boxes"
    broken = [
        xml_object("submarine", DAM),
        xml_object("dam", ((5, 5), (25, "wide"), (25, 15), (5, 15))),
        xml_object("dam", ((5, 5), (25, "nan"), (25, 15), (5, 15))),
        xml_object("dam", DAM, "<difficult>hard</difficult>"),
        xml_object("dam", DAM[:3], "<bndbox><xmin>5</xmin></bndbox>"),
        xml_object("dam", ((5, 5), (25, 5), (45, 5), (15, 5))),
        xml_object("dam", ((500, 5), (510, 5), (510, 15), (500, 15))),
    ]
    lines = [4]
    for text in broken:
        lines.append(lines[-1] + text.count("\n"))
    (labels / "00001.xml").write_text(xml_file("00001", *broken, xml_object("ship", SHIP)))
    (labels / "00002.xml").write_text("<annotation>\n  <object>\n</annotation>")
    (labels / "00003.xml").unlink()
    with (root / "ImageSets" / "Main" / "val.txt").open("a") as stream:
        stream.write("99999\n")
    report = LabelReport()
    with caplog.at_level(logging.INFO):
        records = load_dior_r(root, "trainval", report=report)
    assert [len(r["annotations"]) for r in records] == [0, 2, 0]
    found = {(p.kind, p.file.split("/")[-1], p.line, p.fate) for p in report.problems}
    assert found == {
        ("unknown_class", "00001.xml", lines[0], "dropped"),
        ("number", "00001.xml", lines[1], "dropped"),
        ("non_finite", "00001.xml", lines[2], "dropped"),
        ("difficult_flag", "00001.xml", lines[3], "dropped"),
        ("missing_element", "00001.xml", lines[4], "dropped"),
        ("zero_area", "00001.xml", lines[5], "dropped"),
        ("outside_image", "00001.xml", lines[6], "kept"),
        ("xml", "00002.xml", 3, "dropped"),
        ("image_without_label", "00003.jpg", None, "kept"),
        ("listed_without_image", "val.txt", 2, "dropped"),
    }
    assert report.images == 3 and report.objects == 2
    (problem,) = [p for p in report.problems if p.kind == "missing_element"]
    assert "lacks x_left_bottom, y_left_bottom; it has a horizontal bndbox" in problem.message
    assert f"00001.xml:{lines[0]}: class 'submarine' is not in the class list" in caplog.text
    for policy in ("on_problem", "unknown_class", "out_of_image", "missing_label"):
        with pytest.raises(ValueError, match="Problems in the labels of DIOR-R trainval"):
            load_dior_r(root, "trainval", **{policy: "error"})


FOREIGN = {
    "FAIR1M XML": "<annotation><objects><object><points><point>1,2</point></points>"
    "<possibleresult><name>A220</name></possibleresult></object></objects></annotation>",
    "HRSC2016 XML": "<HRSC_Image><HRSC_Objects><HRSC_Object><mbox_cx>5</mbox_cx></HRSC_Object>"
    "</HRSC_Objects></HRSC_Image>",
    "Pascal VOC XML": "<annotation><object><bndbox><xmin>1</xmin></bndbox></object></annotation>",
    "roLabelImg XML": "<annotation><object><robndbox><cx>5</cx></robndbox></object></annotation>",
    "CVAT XML": "<annotations><image><box label='s' xtl='1'/></image></annotations>",
    "XML with the root <kml>": "<kml xmlns='http://www.opengis.net/kml/2.2'><Document/></kml>",
}


@pytest.mark.parametrize("name", FOREIGN)
def test_xml_of_other_formats_is_told_and_never_an_empty_image(root, name):
    labels = root / "Annotations" / "Oriented Bounding Boxes"
    (labels / "00002.xml").write_text(f"<?xml version='1.0'?>\n{FOREIGN[name]}")
    report = LabelReport()
    records = load_dior_r(root, "train", report=report)
    assert [len(r["annotations"]) for r in records] == [0, 2]
    (problem,) = report.problems
    assert (problem.kind, problem.line) == ("foreign_format", 2)
    assert problem.message.startswith(f"it looks like {name}, which ")
    (labels / "00001.xml").write_text(FOREIGN[name])
    with pytest.raises(ValueError, match=f"(?s)Problems in the labels of DIOR-R train .*{name}"):
        load_dior_r(root, "train")


def test_a_folder_of_other_files_says_what_is_there(root):
    labels = root / "Annotations" / "Oriented Bounding Boxes"
    for path in list(labels.iterdir()):
        path.with_suffix(".txt").write_text("0 0.1 0.1 0.5 0.1 0.5 0.3 0.1 0.3")
        path.unlink()
    with pytest.raises(FileNotFoundError, match=r"\*\.xml.*4 of \.txt\).*YOLO-OBB text"):
        load_dior_r(root, "train")


@pytest.mark.parametrize("flag", ["0.0", " 1 ", ""])
def test_flags_may_have_a_decimal_point(root, flag):
    path = root / "Annotations" / "Oriented Bounding Boxes" / "00002.xml"
    extra = f"<difficult>{flag}</difficult>"
    path.write_text(xml_file("00002", xml_object("dam", DAM, extra), xml_object("dam", DAM, extra)))
    report = LabelReport()
    first = load_dior_r(root, "train", report=report)[0]["annotations"][0]
    assert first["difficult"] == float(flag or 0)
    assert [(p.kind, p.fate) for p in report.problems] == [("duplicate_object", "kept")]


def test_missing_folders_and_lists_are_named(root):
    with pytest.raises(ValueError, match="no split 'all'; it has train, val, trainval, test"):
        load_dior_r(root, "all")
    (root / "ImageSets" / "Main" / "val.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"no list .*Main/val\.txt"):
        load_dior_r(root, "trainval")
    (root / "ImageSets" / "Main" / "train.txt").write_text("77777\n")
    with pytest.raises(FileNotFoundError, match="None of the images that train of"):
        load_dior_r(root, "train")
    (root / "ImageSets" / "Main" / "train.txt").write_text("00001\n")
    (root / "Annotations" / "Oriented Bounding Boxes").rename(root / "Annotations" / "other")
    with pytest.raises(FileNotFoundError, match=r"Oriented Bounding Boxes; .*Horizontal"):
        load_dior_r(root, "train")
    with pytest.raises(FileNotFoundError, match="JPEGImages-test"):
        load_dior_r(root / "nowhere", "test")


def test_registered_split_is_evaluated_on_its_quadrilaterals(root, register):
    register("tiny_dior_r", root, "train", order="ars_detr", metadata={"note": "mine"})
    metadata = MetadataCatalog.get("tiny_dior_r")
    assert metadata.thing_classes == list(class_order("dior_r", "ars_detr"))
    assert metadata.evaluator_type == "dota" and metadata.note == "mine"
    evaluator = DotaEvaluator("tiny_dior_r")
    evaluator.reset()
    for record in DatasetCatalog.get("tiny_dior_r"):
        truth = record["annotations"]
        found = Instances((record["height"], record["width"]))
        found.pred_boxes = RotatedBoxes(torch.tensor([a["bbox"] for a in truth]).reshape(-1, 5))
        found.pred_classes = torch.tensor([a["category_id"] for a in truth], dtype=torch.int64)
        found.scores = torch.ones(len(truth))
        evaluator.process([record], [{"instances": found}])
    assert evaluator.evaluate()["bbox"]["AP50"] == pytest.approx(100)
    with pytest.raises(ValueError, match="no split"):
        register_dior_r("never", root, "all")
    assert "never" not in DatasetCatalog.list()
