"""Windows: newest first, never across the border of a video, gaps are filled and reported."""

from __future__ import annotations

from pathlib import Path

import pytest

from rsd2.data.formats.label_report import LabelReport
from rsd2.data.windows.video_clips import add_windows, list_frames


def windows(frames: dict[str, list[int]], keys: list[tuple[str, int]], num_frames: int = 5):
    files = {video: {n: f"{video}/{n}" for n in numbers} for video, numbers in frames.items()}
    records = [{"file_name": f"{v}/{n}", "video_id": v, "frame_id": n} for v, n in keys]
    report = LabelReport()
    add_windows(records, files, num_frames, report)
    return [record["frame_file_names"] for record in records], report


def test_window_is_the_key_frame_and_those_before_it() -> None:
    (window,), report = windows({"a": list(range(1, 9))}, [("a", 7)])
    assert window == ["a/7", "a/6", "a/5", "a/4", "a/3"] and report.total == 0


@pytest.mark.parametrize(
    ("key", "expected"), [(1, [1, 1, 1, 1, 1]), (2, [2, 1, 1, 1, 1]), (4, [4, 3, 2, 1, 1])]
)
def test_first_frame_repeats_at_the_start(key: int, expected: list[int]) -> None:
    (window,), report = windows({"a": [1, 2, 3, 4], "b": [1, 2, 3]}, [("a", key)])
    assert window == [f"a/{number}" for number in expected] and report.total == 0


def test_videos_do_not_mix_and_may_start_anywhere() -> None:
    found, report = windows({"a": [1, 2, 3], "b": [261, 262, 263]}, [("b", 262), ("a", 3)], 4)
    assert found == [["b/262", "b/261", "b/261", "b/261"], ["a/3", "a/2", "a/1", "a/1"]]
    assert report.total == 0


def test_next_later_frame_stands_for_a_missing_one_which_is_reported_once() -> None:
    found, report = windows({"a": [1, 2, 5, 6]}, [("a", 5), ("a", 6)])
    assert found == [["a/5", "a/5", "a/5", "a/2", "a/1"], ["a/6", "a/5", "a/5", "a/5", "a/2"]]
    assert report.count("missing_frame", "kept") == 2
    assert "no frame 4 before frame 5" in report.problems[0].message


def test_one_frame_video_and_window_of_one() -> None:
    assert windows({"a": [7]}, [("a", 7)], 3)[0] == [["a/7"] * 3]
    assert windows({"a": [1, 2]}, [("a", 2)], 1)[0] == [["a/2"]]
    with pytest.raises(ValueError, match="num_frames must be at least 1"):
        windows({"a": [1]}, [("a", 1)], 0)


def test_frames_of_a_folder_by_number(tmp_path: Path) -> None:
    for name in ("000010.jpg", "000002.JPG", "000001.png", "thumb.jpg", "notes.txt"):
        (tmp_path / name).touch()
    report = LabelReport()
    frames = list_frames(tmp_path, report)
    assert list(frames) == [1, 2, 10] and frames[2].name == "000002.JPG"
    assert report.count("frame_number") == 1 and "thumb.jpg" in report.problems[0].message
    assert list_frames(tmp_path / "nowhere", report) == {}


def test_second_file_of_a_frame_is_reported_and_not_taken(tmp_path: Path) -> None:
    for name in ("000001.jpg", "000001.png", "1.jpg"):
        (tmp_path / name).touch()
    report = LabelReport()
    assert list_frames(tmp_path, report) == {1: tmp_path / "000001.jpg"}
    assert report.count("duplicate_image") == 2
    assert "000001.jpg is frame 1, too" in report.problems[0].message
