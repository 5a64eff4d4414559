"""Windows of frames: the files that a clip model sees for each frame of a video.

A window ends at its key frame and never leaves its video. Shapes: T frames of a window.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from rsd2.data.formats.label_report import LabelReport
from rsd2.io.image_io import IMAGE_EXTENSIONS

NUM_FRAMES = 5
"""Key frame and the four before it."""


def list_frames(folder: str | Path, report: LabelReport) -> dict[int, Path]:
    """Find the frames of a video in a folder.

    Args:
        folder: folder of images named by their number, like ``000001.jpg``.
        report: report that gets images whose name is no number, or whose number another image has.

    Returns:
        number of the frame -> path, by number; empty if the folder is not there.
    """
    frames: dict[int, Path] = {}
    for path in sorted(Path(folder).glob("*")):
        if path.suffix.lower() not in IMAGE_EXTENSIONS:
            continue
        if not path.stem.isdecimal():
            report.add("frame_number", path, None, f"{path.name} is not the number of a frame")
            continue
        add_frame(frames, int(path.stem), path, report)

    return dict(sorted(frames.items()))


def add_frame(frames: dict[int, Path], number: int, path: Path, report: LabelReport) -> None:
    """Add a frame, unless another file has its number.

    Args:
        frames: number -> path; changed.
        number: number of the frame.
        path: path of its file.
        report: report that gets a file whose number is taken.
    """
    if frames.setdefault(number, path) != path:
        report.add("duplicate_image", path, None, f"{frames[number].name} is frame {number}, too")


def add_windows(
    records: Iterable[dict],
    frames: Mapping[str, Mapping[int, str | Path]],
    num_frames: int,
    report: LabelReport,
) -> None:
    """Give each dataset dict the files of its window, ``frame_file_names``.

    The key frame comes first, then earlier frames, newest first. Before the start of the video its
    first frame repeats; a missing frame inside is replaced by the next later one.

    Args:
        records: dataset dicts with ``file_name``, ``video_id``, ``frame_id``; changed.
        frames: number -> file for each video, including frames without a record.
        num_frames: T >= 1.
        report: report that gets each missing frame once.

    Raises:
        ValueError: if ``num_frames`` is less than 1.
    """
    if num_frames < 1:
        raise ValueError(f"num_frames must be at least 1, got {num_frames}")

    # The first frame with a file, with or without a record, because clips need only pixels.
    firsts = {video: min(numbers) for video, numbers in frames.items() if numbers}
    noted = set()
    for record in records:
        video, key = record["video_id"], record["frame_id"]
        known, names = frames.get(video, {}), [record["file_name"]]
        # A record may lie before all listed frames; then it is itself the first one.
        first = min(firsts.get(video, key), key)
        for number in range(key - 1, key - num_frames, -1):
            found = known.get(max(number, first))
            if found is None and number > first and (video, number) not in noted:
                noted.add((video, number))
                message = f"video {video} has no frame {number} before frame {key}"
                report.add("missing_frame", record["file_name"], None, message, "kept")
            # ``names[-1]`` is the next later frame, which stands for a missing one.
            names.append(names[-1] if found is None else str(found))

        record["frame_file_names"] = names
