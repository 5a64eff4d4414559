"""Valid label files, mutated: every reader reads them right or names file and line.

Encodings, line ends and separators, the order and types of fields, truncation, and single bytes:
never an error that names no file, never an object that no valid file has.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.io import savemat

from rsd2.data.datasets import (
    load_coco_boxes,
    load_dior_r,
    load_dota_instances,
    load_drone_crowd,
    load_fair1m,
    load_hrsc2016,
    load_ohd_sjtu,
    load_soda_a,
    load_viso_mot,
)
from rsd2.data.datasets.rscardata import read_voc_boxes
from rsd2.data.formats.label_report import LabelReport
from rsd2.data.formats.pseudo_labels import PseudoLabels, ShardHeader, read_folder, write_shard
from rsd2.data.splits import read_split, select_images, write_split
from rsd2.data.windows.tile_index import Tile, TileIndex, TileSource
from rsd2.evaluation.files.coco_results import read_coco_results
from rsd2.evaluation.files.task1 import read_task1
from tests.data.formats.mutations import byte_changes, change_bytes, put_strange_value, retype
from tests.data.formats.published_labels import HEIGHT, PUBLISHED, WIDTH

NAMES = ["ship", "storage tank", "渔船"]
SHAPES = [
    (10, 20, 40.5, 10, 43, 19, 13, 29),
    (5, 5, 25, 5, 25, 15, 5, 15),
    (50, 30, 70, 30, 70, 35.25, 50, 35.25),
]
many = settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@dataclass
class Reader:
    """A dataset with one label file to mutate.

    Attributes:
        file: the label file.
        read: gives its objects, as values that can be compared, and fills a report.
        valid: bytes of the valid file.
        objects: those of the valid file.
        shows_lines: problems of a text or XML file name the line.
    """

    file: Path
    read: Callable[[LabelReport], list[Any]]
    valid: bytes = b""
    objects: list[Any] = field(default_factory=list)
    shows_lines: bool = True

    def outcome(self, content: bytes) -> tuple[list[Any], list[str]]:
        """Objects and problems of a mutated file; an error is a problem, and names the file."""
        self.file.write_bytes(content)
        report = LabelReport()
        try:
            objects = self.read(report)
            problems = [str(problem) for problem in report.problems]
        except (ValueError, FileNotFoundError) as error:
            objects, problems = [], [str(error)]
        if problems:
            has_lines = (
                self.file.suffix in (".txt", ".xml") and self.shows_lines and content.strip()
            )
            place = re.escape(self.file.name) + (r"(:|, line )\d+" if has_lines else "")
            assert any(re.search(place, problem) for problem in problems), problems
        return objects, problems

    def check(self, content: bytes) -> tuple[list[Any], list[str]]:
        """The outcome, after a check that no object is new unless a problem is named."""
        objects, problems = self.outcome(content)
        if not problems:
            assert all(one in self.objects for one in objects), (content, objects)
        return objects, problems


def write_image(path: Path, height: int = 60, width: int = 80) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.zeros((height, width, 3), np.uint8))


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def places(records: list[dict]) -> list[tuple]:
    return [
        (record["image_id"], annotation["category_id"], *np.round(annotation["bbox"], 6).tolist())
        for record in records
        for annotation in record["annotations"]
    ]


def dota(folder: Path) -> Reader:
    write_image(folder / "images" / "a.png")
    lines = [f"{' '.join(map(str, s))} {n} 1" for s, n in zip(SHAPES, NAMES)]
    file = write(folder / "labelTxt" / "a.txt", "imagesource:谷歌\n" + "\n".join(lines) + "\n")
    return Reader(
        file,
        lambda report: places(
            load_dota_instances(file.parent, folder / "images", NAMES, report=report)
        ),
    )


def ohd(folder: Path) -> Reader:
    write_image(folder / "images" / "a.png")
    lines = [f"{' '.join(map(str, s))} {s[0]} {s[1]} {n} 0" for s, n in zip(SHAPES, "121")]
    file = write(folder / "rotation_txt" / "a.txt", "\n".join(lines) + "\n")
    return Reader(file, lambda report: places(load_ohd_sjtu(folder, "S", report=report)))


def dior_folder(folder: Path) -> tuple[Path, Path]:
    objects = []
    for shape, name in zip(SHAPES, ("ship", "Expressway-Service-area", "dam")):
        keys = ("left_top", "right_top", "right_bottom", "left_bottom")
        corners = zip([f"{axis}_{key}" for key in keys for axis in "xy"], shape)
        box = "\n".join(f"<{key}>{value}</{key}>" for key, value in corners)
        objects.append(
            f"<object>\n<name>{name}</name>\n<difficult>0</difficult>\n"
            f"<robndbox>\n{box}\n</robndbox>\n</object>"
        )
    text = "\n".join(["<annotation>", "<owner>渔船</owner>", *objects, "</annotation>"])
    label = write(folder / "Annotations" / "Oriented Bounding Boxes" / "00001.xml", text)
    write_image(folder / "JPEGImages-trainval" / "00001.jpg")
    write_image(folder / "JPEGImages-trainval" / "00002.jpg")
    write(label.with_name("00002.xml"), text)
    return label, write(folder / "ImageSets" / "Main" / "train.txt", "00002\n00001\n")


def dior(folder: Path) -> Reader:
    label, _ = dior_folder(folder)
    return Reader(label, lambda report: places(load_dior_r(folder, "train", report=report)))


def dior_list(folder: Path) -> Reader:
    _, names = dior_folder(folder)
    return Reader(
        names,
        lambda report: [r["image_id"] for r in load_dior_r(folder, "train", report=report)],
    )


def voc(folder: Path) -> Reader:
    objects = "".join(
        f"<object>\n<name>渔船</name>\n<bndbox>\n<xmin>{s[0]}</xmin>\n<ymin>{s[1] - 9}</ymin>\n"
        f"<xmax>{s[4]}</xmax>\n<ymax>{s[7]}</ymax>\n</bndbox>\n</object>\n"
        for s in SHAPES
    )
    file = write(folder / "000001.xml", f"<annotation>\n{objects}</annotation>")
    return Reader(file, lambda report: read_voc_boxes(file, report) or [])


def coco_content() -> dict:
    return {
        "images": [{"id": 7, "file_name": "a.png", "height": 60, "width": 80}],
        "annotations": [
            {"id": k, "image_id": 7, "category_id": k, "bbox": [*s[:2], 9.5, 7], "area": 66.5,
             "iscrowd": 0, "track_id": k}
            for k, s in enumerate(SHAPES)
        ],
        "categories": [{"id": k, "name": name} for k, name in enumerate(NAMES)],
    }  # fmt: skip


def coco(folder: Path) -> Reader:
    write_image(folder / "images" / "a.png")
    file = write(folder / "labels.json", json.dumps(coco_content(), ensure_ascii=False, indent=0))
    return Reader(
        file,
        lambda report: places(load_coco_boxes(file, folder / "images", NAMES, report=report)),
    )


def coco_results(folder: Path) -> Reader:
    entries = [
        {"image_id": 7, "category_id": 1, "bbox": [*s[:2], 9.5, 7], "score": 0.5} for s in SHAPES
    ]
    file = write(folder / "found.json", json.dumps(entries, indent=0))

    def read(report: LabelReport) -> list[Any]:
        records, _ = read_coco_results(file, {7: ("a.png", ())}, {1: 0})
        return [tuple(row) for record in records for row in record.boxes.tolist()]

    return Reader(file, read)


def tracks(folder: Path) -> Reader:
    base = folder / "mot" / "car" / "001"
    for number in (1, 2):
        write_image(base / "img" / f"{number:06d}.jpg")
    rows = [f"{k % 2 + 1},{k},{s[0]},{s[1]},9.5,7.25,1,1,-1,-1" for k, s in enumerate(SHAPES)]
    file = write(base / "gt" / "gt.txt", "\n".join(rows) + "\n")
    return Reader(file, lambda report: places(load_viso_mot(folder, "car", report=report)))


def task1(folder: Path) -> Reader:
    rows = [f"渔船 0.5 {' '.join(map(str, s))}" for s in SHAPES]
    file = write(folder / "Task1_ship.txt", "\n".join(rows) + "\n")

    def read(report: LabelReport) -> list[Any]:
        found = read_task1(folder, ["渔船"], ["ship"])
        return [tuple(row) for row in found.polygons.reshape(-1, 8).tolist()]

    return Reader(file, read)


def split_list(folder: Path) -> Reader:
    file = folder / "train.txt"
    ids = ["P0001", "far/P0002", "渔船"]
    write_split(file, ids, ["of 谷歌"])

    def read(report: LabelReport) -> list[Any]:
        records = [{"image_id": one} for one in ids]
        return [r["image_id"] for r in select_images(records, read_split(file), str(file))]

    return Reader(file, read, shows_lines=False)  # its hash says that something is wrong, not what


def crowd_boxes(folder: Path) -> Reader:
    write_image(folder / "test_data" / "images" / "img011001.jpg")
    file = folder / "annotations" / "00011.mat"
    file.parent.mkdir(exist_ok=True)
    rows = [[0, k, s[0], s[1], s[0] + 9, s[1] + 7] for k, s in enumerate(SHAPES)]
    savemat(file, {"anno": np.array(rows, dtype=float)})
    return Reader(file, lambda report: places(load_drone_crowd(folder, "test", report=report)))


def crowd_points(folder: Path) -> Reader:
    write_image(folder / "test_data" / "images" / "img011001.jpg")
    file = folder / "test_data" / "ground_truth" / "GT_img011001.mat"
    file.parent.mkdir(exist_ok=True)
    savemat(file, {"image_info": np.array([[s[0], s[1], k] for k, s in enumerate(SHAPES)], float)})
    return Reader(
        file, lambda report: places(load_drone_crowd(folder, "test", "points", report=report))
    )


def shard(folder: Path) -> Reader:
    boxes = np.array([[30, 20, 10.5, 8, k] for k in range(3)], np.float32)
    file = folder / "shard-00000-of-00001.npz"
    write_shard(file, [PseudoLabels("a", 60, 80, boxes, boxes[:, 0])], ShardHeader("b" * 16, 1))

    def read(report: LabelReport) -> list[Any]:
        return [tuple(row) for record in read_folder(folder)[0] for row in record.boxes.tolist()]

    return Reader(file, read)


def tiles(folder: Path) -> Reader:
    index = TileIndex(
        {}, True, [TileSource("a", 80, 60, 3, 0, 0)], [Tile("a", "a", 0, 0, 9, 9, 3, 0)], {}
    )
    file = write(folder / "tiles.json", index.to_json())
    return Reader(file, lambda report: TileIndex.load(folder).tiles)


def hrsc(folder: Path) -> Reader:
    text = PUBLISHED["hrsc"]()["Annotations/a b.xml"]
    file = write(folder / "FullDataSet" / "Annotations" / "a.xml", text)
    write_image(folder / "FullDataSet" / "AllImages" / "a.bmp", HEIGHT, WIDTH)
    write(folder / "ImageSets" / "train.txt", "a\n")
    return published(file, load_hrsc2016, folder, "train")


def fair1m(folder: Path) -> Reader:
    text = PUBLISHED["fair1m"]()["a b.xml"].replace("渔船", "Bridge").replace("storage tank", "Van")
    file = write(folder / "validation" / "labelXml" / "a.xml", text)
    write_image(folder / "validation" / "images" / "a.tif", HEIGHT, WIDTH)
    return published(file, load_fair1m, folder, "val")


def soda_a(folder: Path) -> Reader:
    text = PUBLISHED["soda-a"]()["a b.json"].replace("渔船", "ship")
    file = write(folder / "val" / "Annotations" / "a.json", text)
    write_image(folder / "val" / "Images" / "a.jpg", HEIGHT, WIDTH)
    return published(file, load_soda_a, folder, "val")


def published(file: Path, load: Callable, folder: Path, split: str) -> Reader:
    def read(report: LabelReport) -> list[Any]:
        return places(load(folder, split, report=report))

    return Reader(file, read)


TEXT = (dota, ohd, tracks, task1)
LISTS = (split_list, dior_list)
XML = (dior, voc)
JSON = (coco, coco_results, soda_a)
SETS = (hrsc, fair1m)  # their elements have an order and names of their own
OWN = (tiles,)  # written by this project alone, in UTF-8
BINARY = (crowd_boxes, crowd_points, shard)


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable], Reader]:
    """Function that builds a reader, and checks that it reads its valid file without a problem."""
    monkeypatch.delenv("RSD2_TEXT_ENCODINGS", raising=False)

    def build(builder: Callable[[Path], Reader]) -> Reader:
        reader = builder(tmp_path)
        reader.valid = reader.file.read_bytes()
        report = LabelReport()
        reader.objects = reader.read(report)
        assert reader.objects and report.total == 0, report.summary()
        return reader

    return build


@pytest.mark.parametrize("builder", [*TEXT, *LISTS, *XML, *SETS, *JSON])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "gb18030"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_encodings_and_line_ends_change_nothing(make, builder, encoding, line_end) -> None:
    reader = make(builder)
    text = reader.valid.decode().replace("\n", line_end)
    assert reader.outcome(text.encode(encoding)) == (reader.objects, [])


@pytest.mark.parametrize("builder", [*TEXT, *LISTS, *XML, *JSON])
@pytest.mark.parametrize("encoding", ["big5", "shift_jis", "latin-1"])
def test_other_encodings_are_right_or_named(make, builder, encoding) -> None:
    reader = make(builder)
    data = reader.valid.decode().replace("渔船", "漁 é").encode(encoding, errors="ignore")
    reader.check(data)


@pytest.mark.parametrize("builder", XML)
@pytest.mark.parametrize("encoding", ["gb2312", "big5", "shift_jis", "utf-8"])
def test_declared_encodings_change_nothing(make, builder, encoding) -> None:
    reader = make(builder)
    text = reader.valid.decode().replace("渔船", "漁" if encoding != "gb2312" else "渔船")
    data = f"<?xml version='1.0' encoding='{encoding}'?>\n{text}".encode(encoding)
    assert reader.outcome(data) == (reader.objects, [])


@pytest.mark.parametrize("builder", [*TEXT, *LISTS])
@pytest.mark.parametrize("old", [" ", ",", "\n", "."])
@pytest.mark.parametrize(
    "new", ["\t", "  ", " , ", ",", ";", "|", "", "_", "\u3000", "\n", "\u2028"]
)
def test_other_separators_are_right_or_named(make, builder, old, new) -> None:
    reader = make(builder)
    if old == "." and new == "":  # 40.5 and 405 are both numbers
        return
    text = reader.valid.decode()
    objects, problems = reader.check(text.replace(old, new).encode())
    assert problems or objects == reader.objects
    reader.check(text.replace(old, new, 3).encode())


@pytest.mark.parametrize("builder", TEXT)
@given(data=st.data())
@many
def test_fields_in_another_place_are_right_or_named(make, builder, data) -> None:
    """Words and numbers change places: numbers among themselves are an object of another shape."""
    reader = make(builder)
    lines = reader.valid.decode().splitlines()
    number = data.draw(st.integers(1, len(lines) - 1))
    separator = "," if "," in lines[number] else " "
    fields = lines[number].split(separator)
    words = [k for k, one in enumerate(fields) if not re.fullmatch(r"-?[\d.]+", one)]
    action = data.draw(st.sampled_from(["move", "lose", "repeat"]))
    place = data.draw(st.sampled_from(words or [len(fields) - 1]))
    if action == "move" and words:
        target = data.draw(st.integers(0, len(fields) - 2).filter(lambda k: k not in words))
        fields.insert(target, fields.pop(place))
    elif action == "lose":
        del fields[data.draw(st.integers(0, place))]
    else:
        fields.insert(0, fields[0])
    lines[number] = separator.join(fields)
    objects, problems = reader.outcome("\n".join(lines).encode())
    if action == "move" and words:
        assert problems
    assert problems or len(objects) == len(reader.objects)


@pytest.mark.parametrize("builder", XML)
def test_the_order_of_elements_does_not_matter(make, builder) -> None:
    reader = make(builder)
    text = reader.valid.decode()
    name = re.compile(r"(<name>.*?</name>\n)(.*?)(</object>)", re.DOTALL)
    assert reader.outcome(name.sub(r"\2\1\3", text).encode()) == (reader.objects, [])
    first, rest = re.compile(r"\n(?=<[xy])").split(text, maxsplit=1)
    assert reader.outcome(f"{first}\n<unknown>1</unknown>\n{rest}".encode()) == (reader.objects, [])


@pytest.mark.parametrize("builder", JSON)
@given(seed=st.integers(0, 10**6))
@many
def test_the_order_of_keys_and_the_types_of_values_do_not_matter(make, builder, seed) -> None:
    reader = make(builder)
    assert reader.outcome(retype(reader.valid, seed)) == (reader.objects, [])


@pytest.mark.parametrize("builder", [*JSON, *OWN])
@given(data=st.data())
@many
def test_values_of_wrong_types_are_right_or_named(make, builder, data) -> None:
    reader = make(builder)
    objects, problems = reader.outcome(put_strange_value(reader.valid, data)[0])
    changed = [one for one in objects if one not in reader.objects]
    # A number in the place of another one is an object like any other.
    assert problems or builder in OWN or len(changed) <= 3 and len(objects) <= len(reader.objects)


@pytest.mark.parametrize("builder", [*TEXT, *LISTS, *XML, *SETS, *JSON, *OWN, *BINARY])
@given(share=st.floats(0, 1))
@many
def test_truncated_files_are_right_or_named(make, builder, share) -> None:
    reader = make(builder)
    content = reader.valid[: int(share * len(reader.valid))]
    objects, problems = reader.outcome(content)
    if builder in (task1, tracks) and not content.endswith(b"\n"):
        objects = objects[:-1]  # nothing tells whether the last number has lost digits
    assert problems or all(one in reader.objects for one in objects)


# Not of MAT files: SciPy's compiled reader may crash on them, which no reader above it can help.
@pytest.mark.parametrize("builder", [*TEXT, *LISTS, *XML, *SETS, *JSON, *OWN, shard])
@given(**byte_changes)
@many
def test_changed_bytes_end_in_no_other_error(make, builder, share, length, inserted) -> None:
    reader = make(builder)
    reader.outcome(change_bytes(reader.valid, share, length, inserted))
