"""tools/convert_labels.py: from any tool to any other, with what is lost said."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from rsd2.commands.convert_labels import main
from rsd2.data.formats.registry import LABEL_FORMATS
from tests.data.formats.published_labels import HEIGHT, PUBLISHED, TURNED, WIDTH


@pytest.fixture
def task(tmp_path: Path) -> list[str]:
    """Labels of CVAT with their images, as arguments."""
    for name in ("harbour/a b.png", "empty.png"):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(path), np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    path = tmp_path / "annotations.xml"
    path.write_text(PUBLISHED["cvat"]()["annotations.xml"], encoding="utf-8")
    return ["--input", str(path), "--images", str(tmp_path / "images")]


@pytest.mark.parametrize("target", list(LABEL_FORMATS))
def test_converts_to_every_format(target: str, task: list[str], tmp_path: Path, capsys) -> None:
    one = LABEL_FORMATS[target]
    single = ".xml" if target == "cvat" else ".json" if "sub_folder" not in dir(one) else ""
    output = tmp_path / f"out{single}"
    assert main([*task, "--to", target, "--output", str(output)]) == 0
    printed = capsys.readouterr().out
    assert f"CVAT XML to {one.title}: 2 images, 2 objects" in printed
    assert "classes: storage tank, 渔船" in printed
    assert ("NOT CARRIED OVER: 1 difficult flags" in printed) == ("difficult" not in one.holds)
    found = one.read(output, tmp_path / "images")
    np.testing.assert_allclose(found[1].objects[0].polygon, TURNED, atol=1e-4)
    assert found[0].objects == []


@pytest.mark.parametrize("source", ["cvat", "coco", "label-studio"])
def test_a_folder_with_one_file_for_all_images_will_do(source, tmp_path: Path, capsys) -> None:
    folder = tmp_path / "task"
    folder.mkdir()
    for name, text in PUBLISHED[source]().items():
        (folder / name).write_text(text, encoding="utf-8")
    assert main(["--input", str(folder), "--to", "dota", "--output", str(tmp_path / "o")]) == 0
    printed = capsys.readouterr().out
    assert "2 images, 2 objects" in printed and "classes: storage tank, 渔船" in printed
    assert len(list((tmp_path / "o").rglob("*.txt"))) == 2


def test_classes_choose_and_order(task: list[str], tmp_path: Path, capsys) -> None:
    arguments = [*task, "--to", "coco", "--output", str(tmp_path / "o.json"), "--classes"]
    assert main([*arguments, "boat", "渔船"]) == 0
    content = json.loads((tmp_path / "o.json").read_text("utf-8"))
    assert content["categories"] == [{"id": 1, "name": "boat"}, {"id": 2, "name": "渔船"}]
    assert [a["category_id"] for a in content["annotations"]] == [2]
    printed = capsys.readouterr().out
    assert "unknown_class (1 dropped)" in printed and "annotations.xml:13" in printed


def test_rectangles_and_angles(task: list[str], tmp_path: Path, capsys) -> None:
    path = Path(task[1])
    skewed = path.read_text("utf-8").replace("150.00,25.00", "150.00,30.00")
    path.write_text(skewed, encoding="utf-8")
    arguments = [*task, "--to", "coco-rotated", "--angle", "radians-cw", "--output"]
    assert main([*arguments, str(tmp_path / "a.json")]) == 0
    assert "1 quadrilaterals that are no rectangles" in capsys.readouterr().out
    assert main([*arguments, str(tmp_path / "b.json"), "--rectangles"]) == 0
    assert "quadrilaterals" not in capsys.readouterr().out
    first, second = (json.loads((tmp_path / f"{n}.json").read_text("utf-8")) for n in "ab")
    assert first["annotations"][0]["bbox"] == pytest.approx([60, 50, 40, 20, np.pi / 6], abs=1e-6)
    for one, other in zip(first["annotations"], second["annotations"]):
        assert one["bbox"] == pytest.approx(other["bbox"])


def test_wrong_input_is_one_line_and_leaves_nothing(task: list[str], tmp_path: Path, capsys):
    output = tmp_path / "out"
    for arguments, message in (
        (["--input", str(tmp_path / "no.xml")], "There are no labels"),
        ([*task, "--from", "hrsc"], "annotations.xml: it looks like CVAT XML"),
        (["--input", task[1], "--from", "label-studio"], "looks like CVAT XML"),
        ([*task[:2], "--images", str(tmp_path / "nowhere")], "no image folder"),
    ):
        assert main([*arguments, "--to", "dota", "--output", str(output)]) == 2
        error = capsys.readouterr().err
        assert message in error and "Traceback" not in error, error
        assert not output.exists()
