"""Frames of videos: their order, gaps, broken ones, windows of them, memory."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from rsd2.inference.video_frames import Frame, describe_video, make_clips, read_frames

from .spot_videos import picture, write_folder, write_matroska


def test_windows_begin_with_the_newest_frame() -> None:
    """The first frame repeats; for a frame without image stands the next later one."""
    frames = [Frame(k, "", None if k in (1, 4) else picture(k)) for k in range(1, 8)]
    seen = [[int(image[0, 0, 0]) for image in clip] for _, clip in make_clips(frames, 3)]
    assert seen == [[], [2, 2, 2], [3, 2, 2], [], [5, 5, 3], [6, 5, 5], [7, 6, 5]]
    (_, alone), *_ = make_clips(frames[1:], 1)
    assert len(alone) == 1


def test_frames_of_a_folder(tmp_path: Path) -> None:
    """A gap, a broken frame and one of another size are named; the others come in their order."""
    folder = write_folder(tmp_path / "video", [8, 9, 10, 12, 13])
    whole = (folder / "000010.png").read_bytes()
    (folder / "000010.png").write_bytes(whole[: len(whole) // 2])
    cv2.imwrite(str(folder / "000013.png"), picture(13, (50, 90)))
    (folder / "notes.txt").write_text("no frame")
    frames = list(read_frames(folder))
    assert [frame.number for frame in frames] == [8, 9, 10, 11, 12, 13]
    assert [frame.image is not None for frame in frames] == [True, True, False, False, True, False]
    assert "000010.png" in frames[2].problem and "no frame of this number" in frames[3].problem
    assert "90 x 50 pixels, the frames before it 90 x 60" in frames[5].problem
    assert describe_video(folder) == (5, 10.0)


def test_every_fifth_frame_is_no_gap(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "video", [5, 10, 15, 25])
    assert [f.number for f in read_frames(folder) if f.image is None] == [20]


def test_frames_keep_their_time_stamps(tmp_path: Path) -> None:
    """Of a video whose rate varies, the number of a frame does not tell the time."""
    stamps = [0, 40, 80, 200, 1000, 1040]
    write_matroska(tmp_path / "video.mkv", stamps, [picture(k) for k in range(6)])
    assert [f.seconds for f in read_frames(tmp_path / "video.mkv")] == [t / 1000 for t in stamps]
    folder = write_folder(tmp_path / "folder", [1, 2])
    assert [f.seconds for f in read_frames(folder)] == [None, None]


def test_names_are_ordered_by_their_numbers(tmp_path: Path) -> None:
    """As a person counts: with the order of letters, a window would hold frames 1, 10, 2."""
    for name in ("b", "a10", "a9", "a01"):
        cv2.imwrite(str(tmp_path / f"{name}.png"), picture(1))
    order = [(f.number, f.name[:-4]) for f in read_frames(tmp_path)]
    assert order == [(1, "a01"), (2, "a9"), (3, "a10"), (4, "b")]


def test_times_are_no_numbers_of_frames(tmp_path: Path) -> None:
    """Milliseconds, or one stray file: nothing would be left of the windows, or no end of gaps."""
    times = write_folder(tmp_path / "times", [10, 50, 91, 130, 171], spots=())
    with pytest.raises(ValueError, match=r"5 frames of .*times are named 10 to 171.*rename"):
        list(read_frames(times))
    stray = write_folder(tmp_path / "stray", [1, 2, 3], spots=())
    (stray / "000003.png").rename(stray / "20261125.png")
    with pytest.raises(ValueError, match="named 1 to 20261125"):
        list(read_frames(stray))


def test_a_folder_without_frame_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no frame"):
        list(read_frames(tmp_path))


def test_memory_does_not_grow_with_the_video(monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames are let go: the peak over 60 frames is that over 6, give or take a frame."""

    def frames(count: int) -> Iterator[Frame]:
        for number in range(count):
            yield Frame(number, "", np.zeros((400, 400, 3), dtype=np.uint8))

    def peak(count: int) -> int:
        tracemalloc.start()
        for _ in make_clips(frames(count), 5):
            pass
        value = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return value

    assert peak(60) < peak(6) + 400 * 400 * 3
