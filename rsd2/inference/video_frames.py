"""Frames of videos, one by one, from video files and from folders of images.

Nothing keeps more than one frame, so a video may have any length. Shapes: H, W height
and width of a frame, T frames of a window.
"""

from __future__ import annotations

import mimetypes
import re
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from rsd2.io.image_io import IMAGE_EXTENSIONS, read_image

FOLDER_RATE = 10.0
"""Frames per second of folders, which do not say."""
# Missing frames per existing one; with more, the numbers are times or belong to several videos.
_MOST_MISSING = 10


@dataclass(frozen=True)
class Frame:
    """A frame of a video, or the reason for its absence.

    Attributes:
        number: number in the name of its file, or counted from 1.
        name: name of its file; "" in a video file.
        image: (H, W, 3) uint8 RGB, or None.
        problem: reason for the absence.
        seconds: time stamp since the start of a video file; None in a folder and if the file
            has none. The rate of a video may vary, so that the number does not tell the time.
    """

    number: int
    name: str
    image: np.ndarray | None
    problem: str = ""
    seconds: float | None = None


def is_video(path: Path) -> bool:
    """Tell whether a file is a video, by its name or else by its content.

    Args:
        path: path of the file.

    Returns:
        True if the name ends like that of a video, even if the file then proves to be broken, or
        if OpenCV decodes a first frame. An image is not a video, although OpenCV would take it,
        and those beside it, for one.
    """
    # OpenCV would open an image, and the numbered ones beside it, as a video.
    if path.suffix.lower() in IMAGE_EXTENSIONS:
        return False
    kind, _ = mimetypes.guess_type(path.name)
    if kind is not None and kind.startswith("video/"):
        return True

    capture = cv2.VideoCapture(str(path))
    try:
        return bool(capture.grab())
    finally:
        capture.release()


def describe_video(path: Path) -> tuple[int | None, float]:
    """Read the length and the frame rate of a video.

    Args:
        path: path of a video file or a folder of frames.

    Returns:
        Number of frames, None if the file does not tell, and frames per second.
    """
    if path.is_dir():
        return len(list_numbered_images(path)), FOLDER_RATE

    capture = cv2.VideoCapture(str(path))
    try:
        count, rate = capture.get(cv2.CAP_PROP_FRAME_COUNT), capture.get(cv2.CAP_PROP_FPS)
    finally:
        capture.release()
    return (int(count) if count > 0 else None), (rate if 0 < rate < 1000 else FOLDER_RATE)


def read_frames(path: Path) -> Iterator[Frame]:
    """Read a video frame by frame.

    A folder's files come in the order of `list_numbered_images`; if all names are numbers,
    frames that these leave out are yielded too, without image. The first frame that can be read
    sets the size of all; others count as broken.

    Args:
        path: path of a video file or a folder of frames.

    Yields:
        Every frame; unusable ones have no image.

    Raises:
        ValueError: a folder holds no frame, or so many numbers are missing that they cannot be
            frame numbers.
    """
    size: tuple[int, int] | None = None
    for frame in _read_folder(path) if path.is_dir() else _read_file(path):
        if frame.image is not None:
            size = size or frame.image.shape[:2]
            if frame.image.shape[:2] != size:
                h, w = frame.image.shape[:2]
                problem = f"{w} x {h} pixels, the frames before it {size[1]} x {size[0]}"
                frame = Frame(frame.number, frame.name, None, problem)

        yield frame


def make_clips(
    frames: Iterable[Frame], num_frames: int
) -> Iterator[tuple[Frame, list[np.ndarray]]]:
    """Join each frame to those before it, as the clip mapper does.

    The next later frame of the window replaces one without image; before the start the oldest
    one repeats.

    Args:
        frames: frames of one video in their order.
        num_frames: T, number of frames of a clip, >= 1.

    Yields:
        Each frame and its T images, newest first; no images for a frame without one.
    """
    earlier: deque[np.ndarray | None] = deque(maxlen=num_frames - 1)
    for frame in frames:
        clip: list[np.ndarray] = []
        if frame.image is not None:
            clip.append(frame.image)
            for image in earlier:
                # The clip runs from new to old, so its last image is the next later frame.
                clip.append(clip[-1] if image is None else image)
            clip += [clip[-1]] * (num_frames - len(clip))

        yield frame, clip
        earlier.appendleft(frame.image)


def list_numbered_images(folder: Path) -> list[tuple[int, Path]]:
    """List the frames of a folder in their order, by name, with numbers compared by value: 9 before
    10.

    Args:
        folder: folder of images; other files are ignored.

    Returns:
        Pairs of number and path; numbers come from the names if all are different numbers, else
        from 1 on.
    """
    files = [p for p in folder.iterdir() if p.is_file() and not p.name.startswith(".")]
    files = [p for p in files if p.suffix.lower() in IMAGE_EXTENSIONS]
    files.sort(key=lambda path: (_words_and_numbers(path), path.name))

    numbers = [int(p.stem) if p.stem.isdecimal() else -1 for p in files]
    if len(set(numbers)) < len(numbers) or -1 in numbers:
        return list(enumerate(files, start=1))
    return sorted(zip(numbers, files))


def _words_and_numbers(path: Path) -> list[str | int]:
    parts = re.split(r"(\d+)", path.name)  # words and digits in turn, a word first
    return [int(part) if index % 2 else part for index, part in enumerate(parts)]


def _read_folder(folder: Path) -> Iterator[Frame]:
    files = list_numbered_images(folder)
    if not files:
        raise ValueError(f"folder {folder} holds no frame ({', '.join(IMAGE_EXTENSIONS)})")

    numbers = np.array([number for number, _ in files])
    # A constant step, such as every fifth frame, means that nothing is missing.
    step = int(np.gcd.reduce(np.diff(numbers))) or 1
    expected, last = files[0][0], files[-1][0]

    if (last - expected) // step > _MOST_MISSING * len(files):
        raise ValueError(
            f"the {len(files)} frames of {folder} are named {expected} to {last}, so nearly all "
            "would be missing; if these are times, rename the files to 1, 2, ..., and give every "
            "video a folder"
        )

    for number, path in files:
        for missing in range(expected, number, step):
            yield Frame(missing, "", None, f"folder {folder} has no frame of this number")
        expected = number + step
        try:
            yield Frame(number, path.name, read_image(path))
        except (OSError, ValueError) as error:
            yield Frame(number, path.name, None, str(error))


def _read_file(path: Path) -> Iterator[Frame]:
    capture = cv2.VideoCapture(str(path))
    number, promised = 0, int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    try:
        while True:
            there, image = capture.read()
            if not there:
                break
            number += 1
            milliseconds = capture.get(cv2.CAP_PROP_POS_MSEC)
            # The first frame stands at 0; where a later one does too, the file has no time stamps.
            has_time = number == 1 or milliseconds > 0
            seconds = milliseconds / 1000 if has_time else None
            yield Frame(number, "", cv2.cvtColor(image, cv2.COLOR_BGR2RGB), "", seconds)
    finally:
        capture.release()

    # Files that end too early lose frames silently otherwise.
    if number == 0 or number < promised:
        promise = f"promises {promised} frames and " if promised > 0 else ""
        problem = f"{path} {promise}cannot be read from here on; convert it again"
        yield Frame(number + 1, "", None, problem)
