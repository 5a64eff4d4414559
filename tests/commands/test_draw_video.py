"""The tool that draws labelled videos, as a user runs it."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest
from detectron2.data import DatasetCatalog

from rsd2.commands import draw_video as tool
from rsd2.synthetic import VideoConfig, write_videos


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    config = VideoConfig(size=(48, 64), num_frames=6, density=12.0)
    write_videos(folder, "train", 3, config, progress=False)
    return folder


def test_sheet_has_a_row_for_each_video(root: Path, tmp_path: Path) -> None:
    output = tmp_path / "new" / "sheet.png"
    fixed = ["--root", str(root), "--output", str(output)]
    assert tool.main([*fixed, "--columns", "2", "--cell-size", "100"]) == 0
    assert cv2.imread(str(output)).shape == (3 * 120, 200, 3)
    assert tool.main([*fixed, "--columns", "3", "--cell-size", "100", "--video", "002"]) == 0
    assert cv2.imread(str(output)).shape == (120, 300, 3)


def test_video_file_has_the_frames_asked_for(root: Path, tmp_path: Path) -> None:
    output = tmp_path / "video.avi"
    fixed = ["--root", str(root), "--output", str(output), "--video", "003", "--zoom", "3"]
    assert tool.main([*fixed, "--start", "2", "--num-frames", "4"]) == 0
    capture, number = cv2.VideoCapture(str(output)), 0
    while True:
        more, frame = capture.read()
        if not more:
            break
        assert frame.shape == (144, 192, 3)
        number += 1
    assert number == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "Say what to draw"),
        (["--dataset", "no_such_set"], "no_such_set"),
        (["--root", "nowhere"], "nowhere"),
    ],
)
def test_wrong_input_is_named(
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    options: list[str],
    message: str,
) -> None:
    assert tool.main([*options, "--output", str(tmp_path / "a.png")]) == 2
    assert message in capsys.readouterr().err


def test_wrong_names_and_suffixes(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    fixed = ["--root", str(root)]
    assert tool.main([*fixed, "--output", str(tmp_path / "a.gif")]) == 2
    assert "must end in .png" in capsys.readouterr().err
    wrong = (
        (["--video", "009"], "no videos ['009']"),
        (["--start", "99"], "lower --start"),
        (["--num-videos", "0"], "--num-videos must be at least 1, got 0"),
        (["--columns", "0"], "--columns must be at least 1"),
        (["--cell-size", "0"], "--cell-size must be at least 16"),
        (["--rate", "0", "--output", str(tmp_path / "a.avi")], "must be > 0, got 0.0"),
    )
    for options, message in wrong:
        assert tool.main([*fixed, "--output", str(tmp_path / "a.png"), *options]) == 2
        assert message in capsys.readouterr().err
    several = ["--output", str(tmp_path / "a.avi"), "--video", "001", "002"]
    assert tool.main([*fixed, *several]) == 2
    assert "holds one video, got ['001', '002']" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_data_set_of_single_images_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    name = "images_of_this_test"
    DatasetCatalog.register(name, lambda: [{"file_name": "a.png", "annotations": []}])
    try:
        assert tool.main(["--dataset", name, "--output", str(tmp_path / "a.png")]) == 2
    finally:
        DatasetCatalog.remove(name)
    assert f"{name} has no videos" in capsys.readouterr().err
