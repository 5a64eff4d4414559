"""Detection in videos as a stream: broken frames, interruptions, files."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from rsd2.evaluation.matching.boxes import BoxDetections
from rsd2.inference.clip_detector import ClipDetector
from rsd2.inference.prediction_inputs import find_videos
from rsd2.inference.sliding_window import WindowParameters
from rsd2.inference.video_frames import describe_video, read_frames
from rsd2.inference.video_prediction import RowFiles, predict_video, predict_videos

from .spot_videos import Spots, picture, write_folder, write_matroska


@pytest.fixture
def detector() -> ClipDetector:
    return ClipDetector(Spots(), num_frames=3)


def test_a_folder_gives_rows_results_and_a_drawn_video(
    detector: ClipDetector, tmp_path: Path
) -> None:
    folder = write_folder(tmp_path / "003" / "img1", range(1, 7), spots=((20, 30), (50, 10)))
    (folder / "000004.png").write_bytes(b"broken")
    out = tmp_path / "out"
    results, unreadable = predict_videos(
        [folder], out, detector, WindowParameters(), classes=["car"], protocol={"weights": "none"}
    )
    assert not unreadable and sorted(p.name for p in out.iterdir()) == [
        "003.json", "003.mp4", "003.txt", "videos.json"]  # fmt: skip
    result = results[0]
    assert (result.num_frames, result.num_detections, result.size) == (5, 10, (60, 90))
    assert [number for number, _ in result.failed] == [4] and result.complete
    rows = [line.split(",") for line in (out / "003.txt").read_text().splitlines()]
    assert [int(row[0]) for row in rows] == [1, 1, 2, 2, 3, 3, 5, 5, 6, 6]
    assert all(row[1] == "-1" and row[7:] == ["1", "-1", "-1"] for row in rows)
    boxes = [[float(value) for value in row[2:6]] for row in rows]
    assert boxes[-1] in ([26, 30, 5, 5], [56, 10, 5, 5])
    entries = json.loads((out / "003.json").read_text())
    assert [entry["bbox"] for entry in entries] == boxes
    assert {entry["image_id"] for entry in entries} == {1, 2, 3, 5, 6}
    assert entries[0]["category_id"] == 1 and entries[0]["score"] == pytest.approx(
        230 / 255, abs=1e-6
    )
    summary = json.loads((out / "videos.json").read_text())
    assert summary["videos"][0]["failed"][0][0] == 4 and summary["protocol"] == {"weights": "none"}
    drawn = list(read_frames(out / "003.mp4"))
    assert len(drawn) == 5 and drawn[0].image.shape == (120, 180, 3)
    assert describe_video(out / "003.mp4") == (5, 10.0)


def test_a_video_file_gives_what_its_frames_give(detector: ClipDetector, tmp_path: Path) -> None:
    path = tmp_path / "in.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 12, (90, 60))
    for number in range(1, 9):
        writer.write(cv2.cvtColor(picture(number), cv2.COLOR_RGB2BGR))
    writer.release()
    result = predict_video(path, "in", tmp_path, detector, WindowParameters())
    assert (result.num_frames, result.num_detections, result.failed) == (8, 8, [])
    rows = [line.split(",") for line in (tmp_path / "in.txt").read_text().splitlines()]
    assert [float(row[2]) for row in rows] == pytest.approx([20 + k for k in range(1, 9)], abs=1)
    assert describe_video(path) == (8, 12.0) == describe_video(tmp_path / "in.mp4")


def test_rows_keep_the_time_stamps_of_the_video(detector: ClipDetector, tmp_path: Path) -> None:
    stamps = [0, 40, 500]
    write_matroska(tmp_path / "in.mkv", stamps, [picture(k) for k in (1, 2, 3)])
    predict_video(tmp_path / "in.mkv", "in", tmp_path, detector, WindowParameters())
    rows = json.loads((tmp_path / "in.json").read_text())
    assert [(row["image_id"], row["seconds"]) for row in rows] == [(1, 0), (2, 0.04), (3, 0.5)]


def test_a_file_that_ends_before_its_end_is_reported(
    detector: ClipDetector, tmp_path: Path
) -> None:
    path = tmp_path / "in.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 12, (90, 60))
    noise = np.random.default_rng(0).integers(0, 255, (60, 90, 3), dtype=np.uint8)
    for _ in range(12):
        writer.write(noise)  # so that the frames are most of the file
    writer.release()
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    result = predict_video(path, "in", tmp_path, detector, WindowParameters())
    ((number, problem),) = result.failed
    assert 0 < result.num_frames == number - 1 < 12
    assert "promises 12 frames and cannot be read from here on; convert it again" in problem


@pytest.mark.parametrize(
    ("size", "most", "drawn"),
    [((60, 90), None, (120, 180)), ((60, 90), 60, (40, 60)), ((48, 802), None, (48, 802))],
    ids=["small ones twice", "cut to a size", "large ones once"],
)
def test_size_of_the_drawing(
    detector: ClipDetector, tmp_path: Path, size: tuple, most: int | None, drawn: tuple
) -> None:
    folder = write_folder(tmp_path / "video", [1], size=size)
    predict_video(folder, "v", tmp_path, detector, WindowParameters(), max_drawing_size=most)
    (frame,) = read_frames(tmp_path / "v.mp4")
    assert frame.image.shape == (*drawn, 3)


def test_videos_of_one_frame_and_without_detection(detector: ClipDetector, tmp_path: Path) -> None:
    one = write_folder(tmp_path / "one", [1])
    dark = write_folder(tmp_path / "dark", [1, 2], spots=())
    results, unreadable = predict_videos(
        [one, dark], tmp_path, detector, WindowParameters(), classes=["car"], protocol={}
    )
    assert [result.num_detections for result in results] == [1, 0] and not unreadable
    assert (tmp_path / "dark.txt").read_text() == ""
    assert json.loads((tmp_path / "dark.json").read_text()) == []


def test_scores_below_the_threshold_are_counted(detector: ClipDetector, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "video", range(1, 4))
    result = predict_video(folder, "v", tmp_path, detector, WindowParameters(score_threshold=0.95))
    assert (result.num_detections, result.below_threshold) == (0, 3)


def test_a_video_without_a_usable_frame(detector: ClipDetector, tmp_path: Path) -> None:
    """It is reported, leaves no file, and the next one is done."""
    broken, whole = tmp_path / "broken", write_folder(tmp_path / "whole", [1])
    broken.mkdir()
    (broken / "000001.png").write_bytes(b"no image")
    (tmp_path / "film.mp4").write_bytes(b"no film")
    out = tmp_path / "out"
    results, unreadable = predict_videos(
        [broken, tmp_path / "film.mp4", whole], out, detector, WindowParameters(),
        classes=["car"], protocol={},
    )  # fmt: skip
    assert [Path(result.file).name for result in results] == ["whole"]
    assert "no frame of" in unreadable[str(broken)]
    assert "convert it again" in unreadable[str(tmp_path / "film.mp4")]
    assert not list(out.glob("*broken*")) and not list(out.glob("*film*"))
    assert not list(out.glob(".*"))


def test_an_error_of_the_model_is_not_said_to_be_one_of_a_frame(tmp_path: Path) -> None:
    class Diverged(Spots):
        def forward(self, inputs: list[dict]) -> list[dict]:
            raise ValueError("what the model says is not finite")

    folder = write_folder(tmp_path / "video", [1, 2])
    (folder / "000001.png").write_bytes(b"broken")
    results, unreadable = predict_videos(
        [folder], tmp_path / "out", ClipDetector(Diverged()), WindowParameters(),
        classes=["car"], protocol={},
    )  # fmt: skip
    assert not results and unreadable == {str(folder): "what the model says is not finite"}


def test_a_video_may_be_called_as_the_summary_is(detector: ClipDetector, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "videos", [1, 2])
    out = tmp_path / "out"
    (result,), _ = predict_videos(
        [folder], out, detector, WindowParameters(), classes=["car"], protocol={}
    )
    entries = json.loads((out / f"{result.output}.json").read_text())
    assert [entry["image_id"] for entry in entries] == [1, 2]
    assert json.loads((out / "videos.json").read_text())["videos"][0]["output"] == result.output


def test_the_folder_where_one_is_has_a_name(
    detector: ClipDetector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(write_folder(tmp_path / "003" / "img1", [1, 2]))
    (result,), unreadable = predict_videos(
        [Path(".")], tmp_path / "out", detector, WindowParameters(), classes=["car"], protocol={}
    )
    assert result.output == "003" and not unreadable


@pytest.mark.parametrize("frames", [0, 3])
def test_an_interruption_keeps_what_was_done_and_begins_no_other_video(
    frames: int, tmp_path: Path
) -> None:
    class Interrupted(Spots):
        is_over = False

        def forward(self, inputs: list[dict]) -> list[dict]:
            if len(self.clips) == frames and not self.is_over:
                self.is_over = True
                raise KeyboardInterrupt
            return super().forward(inputs)

    folders = [write_folder(tmp_path / name, range(1, 9)) for name in "ab"]
    results, unreadable = predict_videos(
        folders, tmp_path / "out", ClipDetector(Interrupted(), num_frames=2), WindowParameters(),
        classes=["car"], protocol={},
    )  # fmt: skip
    assert [(r.output, r.num_frames, r.complete) for r in results] == [("a", frames, False)]
    own = ["a.json", "a.mp4", "a.txt"] if frames else []
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [*own, "videos.json"]
    assert not unreadable
    if frames:
        assert len((tmp_path / "out" / "a.txt").read_text().splitlines()) == frames


def test_an_interruption_while_a_frame_is_drawn_keeps_the_rows(
    detector: ClipDetector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_two(path: Path, frames: Iterator[np.ndarray], rate: float) -> None:
        next(frames), next(frames)
        raise KeyboardInterrupt

    monkeypatch.setattr("rsd2.inference.video_prediction.write_video", write_two)
    folder = write_folder(tmp_path / "video", range(1, 9))
    result = predict_video(folder, "v", tmp_path, detector, WindowParameters())
    assert (result.num_frames, result.complete) == (2, False)
    assert len((tmp_path / "v.txt").read_text().splitlines()) == 2
    assert len(json.loads((tmp_path / "v.json").read_text())) == 2


def test_a_drawn_video_never_replaces_one_that_is_read(
    detector: ClipDetector, tmp_path: Path
) -> None:
    folder = write_folder(tmp_path / "video", range(1, 4))
    predict_video(folder, "video", tmp_path, detector, WindowParameters())
    before = (tmp_path / "video.mp4").read_bytes()
    with pytest.raises(ValueError, match="would replace .*video.mp4; choose another --output"):
        predict_videos(
            [tmp_path / "video.mp4"],
            tmp_path,
            detector,
            WindowParameters(),
            classes=[],
            protocol={},
        )
    assert (tmp_path / "video.mp4").read_bytes() == before
    (tmp_path / "other").mkdir()
    shutil.copy(tmp_path / "video.mp4", tmp_path / "other")
    with pytest.raises(ValueError, match="would replace"):  # by the drawing of the first
        predict_videos(
            [tmp_path / "other" / "video.mp4", tmp_path / "video.mp4"],
            tmp_path,
            detector,
            WindowParameters(),
            classes=[],
            protocol={},
        )
    assert (tmp_path / "video.mp4").read_bytes() == before


def test_rows_are_as_exact_in_large_frames(tmp_path: Path) -> None:
    none = np.zeros(1, dtype=np.int64)
    found = BoxDetections(none, none, np.array([0.5]), np.array([[12345.678, 4.25, 12351, 10]]))
    with RowFiles(tmp_path, "rows", 1) as rows:
        rows.add(7, found)
    (entry,) = json.loads((tmp_path / "rows.json").read_text())
    cells = (tmp_path / "rows.txt").read_text().split(",")
    assert [float(cell) for cell in cells[2:6]] == entry["bbox"] == [12345.678, 4.25, 5.322, 5.75]


def test_an_error_leaves_no_rows(detector: ClipDetector, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), RowFiles(tmp_path, "rows", 1):
        raise RuntimeError
    assert not list(tmp_path.iterdir())


def test_inputs(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "video", [1, 2])
    (tmp_path / "a.mp4").touch()
    (tmp_path / "b.MP4").touch()
    names = [str(folder), str(tmp_path / "*.[mM][pP]4"), str(tmp_path / "a.mp4")]
    assert [p.name for p in find_videos(names)] == ["video", "a.mp4", "b.MP4"]
    for suffix in (".m4v", ".wmv", ".flv", ".unheard-of", ""):  # read for what they are
        write_matroska(tmp_path / f"c{suffix}", [0, 40], [picture(1), picture(2)])
        assert find_videos([str(tmp_path / f"c{suffix}")]) == [tmp_path / f"c{suffix}"]
        assert [f.number for f in read_frames(tmp_path / f"c{suffix}")] == [1, 2]
    (tmp_path / "notes.txt").write_text("no video")
    with pytest.raises(ValueError, match="notes.txt is no video"):
        find_videos([str(tmp_path / "notes.txt")])
    with pytest.raises(FileNotFoundError, match="there is no video .*none.mp4"):
        find_videos([str(tmp_path / "none.mp4")])
    with pytest.raises(FileNotFoundError, match="holds no frame"):
        find_videos([str(tmp_path)])
    with pytest.raises(ValueError, match="000001.png is no video, neither by its name"):
        find_videos([str(folder / "000001.png")])
