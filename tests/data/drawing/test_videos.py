"""Drawn frames and video files: outlines beside the objects, paths, nothing half-written."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from rsd2.data.drawing.videos import draw_record, draw_tracked_boxes, group_videos, write_video

GREY = np.full((30, 40, 3), 90, dtype=np.uint8)


def test_outline_goes_around_the_pixels_of_the_object() -> None:
    drawn = draw_tracked_boxes(GREY, np.array([[10, 12, 16, 17]]), zoom=4)
    assert drawn.shape == (120, 160, 3) and (GREY == 90).all()
    changed = (drawn != 90).any(axis=2)
    assert not changed[48:68, 40:64].any()  # the object itself
    rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
    assert 45 <= rows[0] < 48 and 68 <= rows[-1] < 71
    assert 37 <= columns[0] < 40 and 64 <= columns[-1] < 67
    assert np.array_equal(draw_tracked_boxes(GREY, np.zeros((0, 4)), zoom=1), GREY)
    with pytest.raises(ValueError, match="zoom must be at least 1"):
        draw_tracked_boxes(GREY, np.zeros((0, 4)), zoom=0)


def test_paths_of_tracks_are_drawn(tmp_path: Path) -> None:
    Image.fromarray(GREY).save(tmp_path / "a.png")

    def record(x: float, track: int | None) -> dict:
        annotation = {"bbox": [x, 10, 4, 4], "category_id": 0}
        if track is not None:
            annotation["track_id"] = track
        return {"file_name": str(tmp_path / "a.png"), "annotations": [annotation]}

    with_path = draw_record(record(30, 7), [record(20, 7), record(10, 7)], zoom=1)
    without = draw_record(record(30, 7), zoom=1)
    other = draw_record(record(30, 7), [record(20, 8)], zoom=1)
    untracked = draw_record(record(30, None), [record(20, None)], zoom=1)
    assert np.array_equal(other, without) and np.array_equal(untracked, without)
    extra = (with_path != without).any(axis=2)
    columns = np.flatnonzero(extra.any(axis=0))
    assert columns[0] <= 12 and columns[-1] >= 27 and np.flatnonzero(extra.any(axis=1)).size <= 4
    bare = draw_record(record(30, 7), [record(20, 7)], zoom=1, show_boxes=False)
    assert np.array_equal(bare, GREY)


def test_videos_are_sorted_by_frame() -> None:
    records = [{"video_id": v, "frame_id": n} for v, n in (("b", 2), ("a", 1), ("b", 1))]
    videos = group_videos(records)
    assert list(videos) == ["b", "a"]
    assert [record["frame_id"] for record in videos["b"]] == [1, 2]


@pytest.mark.parametrize("suffix", [".mp4", ".avi"])
def test_video_file_shows_the_frames(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / "new" / f"video{suffix}"
    levels = (40, 120, 200)
    frames = (np.full((48, 64, 3), (level, 60, 60), dtype=np.uint8) for level in levels)
    assert write_video(path, frames, rate=5.0) == 3
    assert [item.name for item in path.parent.iterdir()] == [path.name]
    capture = cv2.VideoCapture(str(path))
    read = [capture.read()[1] for _ in range(3)]
    assert not capture.read()[0]
    for level, frame in zip(levels, read):
        assert frame.shape == (48, 64, 3)
        assert abs(frame[:, :, 2].mean() - level) < 12 and abs(frame[:, :, 0].mean() - 60) < 12


def test_nothing_half_written_stays(tmp_path: Path) -> None:
    path = tmp_path / "video.avi"
    with pytest.raises(ValueError, match=r"frame 2 of .* has 20 x 30 pixels"):
        write_video(path, iter([GREY, GREY[:, :20]]))
    with pytest.raises(ValueError, match="no frame to write"):
        write_video(path, iter([]))
    with pytest.raises(ValueError, match=r"must end in one of \.mp4, \.avi"):
        write_video(tmp_path / "video.gif", iter([GREY]))
    with pytest.raises(ValueError, match="frames per second of .* must be > 0, got 0"):
        write_video(path, iter([GREY]), rate=0)
    assert list(tmp_path.iterdir()) == []
