"""The tool that writes synthetic folders, as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import pytest

from rsd2.commands import make_synthetic as tool
from rsd2.synthetic.scenes.scene import draw_scene


def arguments(folder: Path, *more: str) -> list[str]:
    fixed = ["--num-images", "5", "--size", "128", "--scale", "0.8", "--num-workers", "0"]
    return ["--output", str(folder), *fixed, *more]


def test_writes_a_folder_and_its_preview(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert tool.main(arguments(tmp_path, "--preview", "4", "--seed", "3")) == 0
    record = json.loads((tmp_path / "scenes.json").read_text())
    assert record["parameters"]["seed"] == 3
    assert record["num_images"] == 5
    out = capsys.readouterr().out
    for name, number in record["objects"].items():
        assert any(line.split()[:2] == [name, str(number)] for line in out.splitlines())
    sheet = cv2.imread(str(tmp_path / "preview.png"))
    assert sheet.shape[0] == sheet.shape[1]  # two rows of two scenes


def test_preview_shows_the_labels(tmp_path: Path) -> None:
    assert tool.main(arguments(tmp_path)) == 0
    index = next(k for k in range(5) if tool.read_labels(tmp_path / "labelTxt" / f"S{k:06d}.txt"))
    tool.draw_preview(tmp_path, 5)
    with_labels = cv2.imread(str(tmp_path / "preview.png"))
    label = tmp_path / "labelTxt" / f"S{index:06d}.txt"
    label.write_text("\n".join(label.read_text().splitlines()[:2]) + "\n")
    tool.draw_preview(tmp_path, 5)
    without = cv2.imread(str(tmp_path / "preview.png"))
    assert (with_labels != without).any()


def test_rectangular_scenes(tmp_path: Path) -> None:
    command = ["--output", str(tmp_path), "--num-images", "1", "--size", "96", "160"]
    assert tool.main([*command, "--num-workers", "0"]) == 0
    assert cv2.imread(str(tmp_path / "images" / "S000000.png")).shape == (96, 160, 3)


def test_errors_are_one_line_with_a_way_out(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert tool.main(arguments(tmp_path, "--empty-fraction", "2")) == 2
    assert "empty_fraction must lie between" in capsys.readouterr().err
    assert tool.main(arguments(tmp_path)) == 0
    capsys.readouterr()
    assert tool.main(arguments(tmp_path, "--seed", "9")) == 2
    error = capsys.readouterr().err
    assert "choose another folder" in error.splitlines()[-1]


def test_shards_share_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, complete in (("1", False), ("0", True)):
        monkeypatch.setenv("RANK", rank)
        assert tool.main(arguments(tmp_path)) == 0
        assert json.loads((tmp_path / "scenes.json").read_text())["complete"] is complete


def test_tiny_scenes_and_their_preview(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    command = ["--kind", "tiny", "--output", str(tmp_path), "--num-images", "4", "--num-workers"]
    assert tool.main([*command, "0", "--size", "96", "128", "--preview", "4"]) == 0
    out = capsys.readouterr().out
    assert "sea_person" in out
    assert "tiny1" in out
    assert cv2.imread(str(tmp_path / "preview.png")) is not None
    record = json.loads((tmp_path / "scenes.json").read_text())
    assert record["parameters"]["size"] == [96, 128]


@pytest.mark.parametrize(
    "options",
    [["--kind", "tiny", "--scale", "1"], ["--dense-fraction", "0.1"], ["--split", "test"]],
)
def test_options_of_the_other_kind_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture, options: list[str]
) -> None:
    assert tool.main(["--output", str(tmp_path), "--num-images", "1", *options]) == 2
    assert "has no meaning" in capsys.readouterr().err


def test_writes_videos_with_their_statistics_and_preview(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    fixed = ["--num-images", "2", "--size", "64", "80", "--num-frames", "5", "--num-workers", "0"]
    command = ["--kind", "video", "--output", str(tmp_path), *fixed, "--density", "9"]
    assert tool.main([*command, "--split", "test", "--preview", "2"]) == 0
    out = capsys.readouterr().out
    assert "vehicles in 512 x 512 px, mean *" in out and "preview_test.png" in out
    sheet = cv2.imread(str(tmp_path / "preview_test.png"))
    assert sheet.shape[1] == 3 * (1600 // 3)
    record = json.loads((tmp_path / "videos_test.json").read_text())
    assert record["complete"] and record["parameters"]["size"] == [64, 80]
    assert len(list(tmp_path.rglob("*.jpg"))) == 10
    assert tool.main([*command, "--split", "test", "--standing-lanes", "0.5"]) == 2
    assert "standing_lanes: 0.25 there, 0.5 asked for" in capsys.readouterr().err
    assert tool.main([*command, "--clutter", "2"]) == 2
    assert "--clutter has no meaning with --kind video" in capsys.readouterr().err


def test_georeferenced_scenes_and_their_preview(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    for name in ("rasterio", "pyogrio", "pyproj"):
        pytest.importorskip(name)
    command = ["--georeferenced", "--output", str(tmp_path), "--num-images", "2", "--size", "256"]
    command += [
        "--num-workers",
        "0",
        "--crs",
        "EPSG:3857",
        "--place",
        "24.9",
        "60",
        "--sixteen-bit",
    ]
    assert tool.main([*command, "--preview", "2"]) == 0
    out = capsys.readouterr().out
    record = json.loads((tmp_path / "scenes.json").read_text())
    assert f"2 scenes, {record['empty_images']} of them empty" in out and "preview.png" in out
    place = record["parameters"]["place"]
    assert (place["crs"], place["longitude"], place["gsd"]) == ("EPSG:3857", 24.9, 0.33)
    assert cv2.imread(str(tmp_path / "preview.png")).std() > 10
    assert sorted(path.name for path in tmp_path.glob("S*")) == [
        "S000000.gpkg",
        "S000000.tif",
        "S000001.gpkg",
        "S000001.tif",
    ]


def test_places_have_no_meaning_for_other_kinds(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert tool.main(arguments(tmp_path, "--sixteen-bit")) == 2
    assert "--sixteen-bit has no meaning with --kind rotated" in capsys.readouterr().err


def test_themes_are_the_usual_ones_unless_some_are_named(tmp_path: Path) -> None:
    usual = tool.SceneConfig().theme_weights
    for name, words in (("all", usual), ("some", ["marina", "port"]), ("default", [])):
        options = ["--themes", *words] if words else []
        assert tool.main(arguments(tmp_path / name, *options)) == 0
    weights = {
        name: json.loads((tmp_path / name / "scenes.json").read_text())["parameters"][
            "theme_weights"
        ]
        for name in ("all", "some", "default")
    }
    assert weights["all"] == weights["default"] == usual
    assert weights["some"] == {name: usual[name] for name in ("marina", "port")}


def test_a_georeferenced_scene_of_one_tile_has_no_seam(tmp_path: Path) -> None:
    pytest.importorskip("rasterio")
    command = ["--georeferenced", "--output", str(tmp_path), "--num-images", "1", "--size", "96"]
    assert tool.main([*command, "--tile-size", "96", "--themes", "marina"]) == 0
    with tool.Raster(tmp_path / "S000000.tif") as raster:
        rule = tool.Radiometry(scaling="range", low=0, high=255).measure(raster)
        pixels = raster.read_overview(96, rule)[0].pixels
    record = json.loads((tmp_path / "scenes.json").read_text())["parameters"]
    config = tool.SceneConfig(size=96, theme_weights=record["theme_weights"])
    assert (pixels.round() == draw_scene(config, 0, 0).image).all()
