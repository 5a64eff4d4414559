"""Drawing of video frames with boxes and the paths of their objects; video files; contact sheets.

Objects of a few pixels need an enlarged picture. Shapes: N objects, H, W frame height and width.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from rsd2.io.files import make_output_folder, replaced_file
from rsd2.io.image_io import read_image

from .boxes import class_color, draw_rotated_boxes

VIDEO_CODECS = {".mp4": "mp4v", ".avi": "MJPG"}
"""Suffix of a video file -> codec that OpenCV brings."""

_TRAIL_FRAMES = 12


def draw_tracked_boxes(
    image_rgb: np.ndarray,
    boxes: np.ndarray,
    *,
    zoom: int = 2,
    colors: Sequence[tuple[int, int, int]] | None = None,
    scores: Sequence[float] | None = None,
    trails: Sequence[np.ndarray] = (),
) -> np.ndarray:
    """Draw upright boxes and paths on an enlarged frame.

    Args:
        image_rgb: (H, W, 3) uint8; not changed.
        boxes: (N, 4) x0, y0, x1, y1 in pixels of the frame.
        zoom: factor of enlargement, a whole number >= 1.
        colors: N RGB triples; those of class 0 if None.
        scores: N numbers in [0, 1], written as percent.
        trails: each (K, 2) xy pixels of the frame, a path that led to an object.

    Returns:
        (zoom * H, zoom * W, 3) uint8.

    Raises:
        ValueError: if ``zoom`` is less than 1, or lengths differ.
    """
    if zoom < 1:
        raise ValueError(f"zoom must be at least 1, got {zoom}")

    canvas = cv2.resize(image_rgb, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_CUBIC)
    for trail in trails:
        # Coordinates count from the edges of pixels, OpenCV's from their middles, in sixteenths.
        points = np.rint((np.asarray(trail, dtype=np.float64) * zoom - 0.5) * 16)
        cv2.polylines(canvas, [points.astype(np.int32)], False, (255, 230, 80), 1, cv2.LINE_AA, 4)

    boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4) * zoom
    # The outline lies beside the object's pixels, not on them, because they are few.
    sides = boxes[:, 2:] - boxes[:, :2] + 3
    middles = (boxes[:, :2] + boxes[:, 2:]) / 2
    rotated = np.column_stack([middles, sides, np.zeros(len(boxes))])
    return draw_rotated_boxes(canvas, rotated, scores=scores, colors=colors, thickness=1)


def draw_record(
    record: dict, earlier: Sequence[dict] = (), *, zoom: int = 2, show_boxes: bool = True
) -> np.ndarray:
    """Draw a dataset dict of a video's frame: boxes, and paths where tracks are known.

    Args:
        record: with ``file_name`` and ``annotations`` of upright boxes.
        earlier: dicts of frames before it, newest first; the last 12 are looked at.
        zoom: whole number >= 1.
        show_boxes: False draws the bare frame.

    Returns:
        (zoom * H, zoom * W, 3) uint8 RGB.

    Raises:
        FileNotFoundError: if the frame is not there.
        ValueError: if it is broken.
    """
    image = read_image(record["file_name"])
    annotations = record.get("annotations", []) if show_boxes else []
    boxes = np.array([a["bbox"] for a in annotations], dtype=np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]

    # A path needs two frames that know the track.
    history = [_centers(item) for item in (record, *earlier[:_TRAIL_FRAMES])]
    trails = []
    for track in history[0] if show_boxes else ():
        trail = [centers[track] for centers in history if track in centers]
        if len(trail) > 1:
            trails.append(np.array(trail))

    colors = [class_color(a["category_id"]) for a in annotations]
    return draw_tracked_boxes(image, boxes, zoom=zoom, colors=colors, trails=trails)


def group_videos(records: Iterable[dict]) -> dict[str, list[dict]]:
    """Sort dataset dicts into videos.

    Args:
        records: with ``video_id`` and ``frame_id``.

    Returns:
        video -> its dicts by frame; videos in the order in which they first appear.
    """
    videos: dict[str, list[dict]] = {}
    for record in records:
        videos.setdefault(record["video_id"], []).append(record)
    return {video: sorted(group, key=lambda r: r["frame_id"]) for video, group in videos.items()}


def write_video(path: str | Path, frames: Iterable[np.ndarray], rate: float = 10.0) -> int:
    """Write a video file under another name and move it into place.

    Args:
        path: ends in one of ``VIDEO_CODECS``.
        frames: (H, W, 3) uint8 RGB each, all of one size; taken one at a time.
        rate: frames per second, > 0.

    Returns:
        the number of frames.

    Raises:
        ValueError: for another suffix, a rate that is not > 0, no frame, or frames of unequal
            sizes.
        OSError: if OpenCV cannot write the file.
    """
    path = Path(path)
    if path.suffix.lower() not in VIDEO_CODECS:
        raise ValueError(f"{path} must end in one of {', '.join(VIDEO_CODECS)}")
    if not rate > 0:
        raise ValueError(f"the frames per second of {path} must be > 0, got {rate}")
    make_output_folder(path.parent)

    # OpenCV chooses the container by the suffix.
    with replaced_file(path, keep_suffix=True) as unfinished:
        return _encode(path, unfinished, frames, rate)


def _encode(path: Path, unfinished: Path, frames: Iterable[np.ndarray], rate: float) -> int:
    """Write frames to the unfinished file of a video and close it; return how many they are."""
    code = cv2.VideoWriter.fourcc(*VIDEO_CODECS[path.suffix.lower()])
    writer, size, number = cv2.VideoWriter(), None, 0
    try:
        for frame in frames:
            if size is None:
                size = frame.shape[1::-1]
                if not writer.open(str(unfinished), code, rate, size):
                    raise OSError(f"OpenCV cannot write {path}; try another suffix, .avi")

            # OpenCV would drop a frame of another size without a word.
            if frame.shape[1::-1] != size:
                raise ValueError(
                    f"frame {number + 1} of {path} has {frame.shape[1]} x {frame.shape[0]} pixels, "
                    f"those before it {size[0]} x {size[1]}"
                )

            writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
            number += 1
    finally:
        # Released before the file takes its name: only then is its index written.
        writer.release()

    if number == 0:
        raise ValueError(f"there is no frame to write to {path}")
    return number


def _centers(record: dict) -> Mapping[int, tuple[float, float]]:
    """Track -> middle of its box."""
    return {
        a["track_id"]: (a["bbox"][0] + a["bbox"][2] / 2, a["bbox"][1] + a["bbox"][3] / 2)
        for a in record.get("annotations", [])
        if a.get("track_id") is not None
    }
