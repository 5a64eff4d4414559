"""Detection in whole videos as a stream: rows for trackers, COCO results, and a drawn video.

Memory does not grow with the video: a window of frames is held, and rows go to disk at once.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TextIO

import cv2
import numpy as np
from tqdm import tqdm

from rsd2.data.drawing.boxes import class_color
from rsd2.data.drawing.videos import draw_tracked_boxes, write_video
from rsd2.evaluation.files.coco_results import to_coco_results
from rsd2.evaluation.matching.boxes import BoxDetections
from rsd2.io.files import replaced_file, write_atomically

from .clip_windows import DetectClips, detect_in_clip
from .prediction_files import output_names
from .sliding_window import WindowParameters
from .video_frames import describe_video, make_clips, read_frames

SUMMARY_NAME = "videos.json"
_FRAME_FOLDERS = ("img1", "img")
_SMALL_FRAME = 800  # pixels: frames up to here are drawn at twice their size


@dataclass
class VideoResult:
    """What happened to one video.

    Attributes:
        file: the video.
        output: name of its result files, without suffix.
        size: (height, width) of the frames, pixels; None if none could be read.
        num_frames: that were looked at.
        num_detections: that were written.
        below_threshold: detections left out because of their score.
        non_finite: detections that were not finite.
        seconds: that detecting took.
        failed: (frame, reason) of frames that could not be used.
        complete: False if the user interrupted it.
    """

    file: str
    output: str
    size: tuple[int, int] | None = None
    num_frames: int = 0
    num_detections: int = 0
    below_threshold: int = 0
    non_finite: int = 0
    seconds: float = 0.0
    failed: list[tuple[int, str]] = field(default_factory=list)
    complete: bool = True


class RowFiles:
    """The detections of one video: ``<name>.txt`` and ``<name>.json``.

    A line of the text file is ``frame,-1,x,y,width,height,score,class,-1,-1``, detections as
    MOTChallenge's trackers read them, the class counted from 1. The JSON file is a list in COCO's
    result format whose ``image_id`` is the number of the frame; where the video has time stamps,
    ``seconds`` is that of the frame. To be used as a context, which writes under other names; the
    files appear when it ends, by the user's interruption too, and not at all if an error ends it.
    """

    def __init__(self, folder: Path, name: str, num_classes: int) -> None:
        """Choose the names.

        Args:
            folder: exists.
            name: without suffix.
            num_classes: of the model.
        """
        self._paths = [folder / f"{name}.txt", folder / f"{name}.json"]
        self._streams: list[TextIO] = []
        self._stack = ExitStack()
        self._categories = range(1, num_classes + 1)
        self._is_first = True

    def __enter__(self) -> RowFiles:
        with ExitStack() as stack:
            unfinished = [stack.enter_context(replaced_file(path)) for path in self._paths]
            self._streams = [
                stack.enter_context(path.open("w", encoding="utf-8")) for path in unfinished
            ]
            self._streams[1].write("[")
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: Any) -> None:
        self._streams[1].write("\n]\n")
        # What was found before an interruption is worth keeping, so the files end as if whole.
        if kind is KeyboardInterrupt:
            self._stack.close()
        else:
            self._stack.__exit__(kind, *error)

    def add(self, number: int, found: BoxDetections, seconds: float | None = None) -> None:
        """Write the detections of a frame.

        Args:
            number: number of the frame.
            found: detections; ``image_index`` is not looked at.
            seconds: time stamp of the frame, which the JSON file keeps; the lines for trackers
                have no place for it.
        """
        here = found._replace(image_index=np.zeros(len(found.scores), dtype=np.int64))
        for entry in to_coco_results(here, [number], self._categories):
            entry["bbox"] = [round(value, 3) for value in entry["bbox"]]
            entry["score"] = round(entry["score"], 6)
            box = ",".join(map(str, entry["bbox"]))
            row = f"{number},-1,{box},{entry['score']:g},{entry['category_id']},-1,-1\n"
            self._streams[0].write(row)
            if seconds is not None:
                entry["seconds"] = round(seconds, 6)
            self._streams[1].write(("\n" if self._is_first else ",\n") + json.dumps(entry))
            self._is_first = False


def predict_video(
    path: Path,
    name: str,
    folder: Path,
    detector: DetectClips,
    parameters: WindowParameters,
    *,
    num_classes: int = 1,
    max_drawing_size: int | None = None,
) -> VideoResult:
    """Detect objects in every frame of a video and write what is found.

    The folder gets ``<name>.txt`` and ``<name>.json``, see `RowFiles`, and ``<name>.mp4`` with the
    detections drawn. A frame that cannot be used has no detections and is not drawn. Interrupted,
    it ends with what was done: nothing before the first frame is, and no drawn video if a frame of
    it was just being written.

    Args:
        path: of a video file or a folder of frames.
        name: of the results, without suffix.
        folder: exists.
        detector: the model.
        parameters: of windows, merging and the score threshold.
        num_classes: of the model.
        max_drawing_size: longer side of the drawn frames at most, pixels; None: small frames are
            drawn at twice their size, others at their own.

    Returns:
        What happened.

    Raises:
        OSError: a result cannot be written.
        ValueError: no frame of the video can be read, or the model refuses one.
    """
    result = VideoResult(str(path), name)
    length, rate = describe_video(path)

    def drawn(rows: RowFiles) -> Iterator[np.ndarray]:
        clips = make_clips(read_frames(path), detector.num_frames)
        try:
            for frame, clip in tqdm(clips, total=length, desc=name, unit="frame"):
                if frame.image is None:
                    result.failed.append((frame.number, frame.problem))
                    continue
                found = _detect(clip, detector, parameters, result)
                rows.add(frame.number, found, frame.seconds)
                yield _draw(frame.image, found, max_drawing_size)
        except KeyboardInterrupt:
            result.complete = False

    try:
        with RowFiles(folder, name, num_classes) as rows:
            write_video(folder / f"{name}.mp4", drawn(rows), rate)
    except KeyboardInterrupt:
        result.complete = False
    except ValueError as error:
        if not result.complete and not result.num_frames:
            return result  # there is nothing to draw yet
        if result.size is None and result.failed:
            raise ValueError(f"no frame of {path} can be read: {result.failed[0][1]}") from error
        raise
    return result


def predict_videos(
    videos: Sequence[Path],
    folder: Path,
    detector: DetectClips,
    parameters: WindowParameters,
    *,
    classes: Sequence[str],
    protocol: Mapping[str, Any],
    max_drawing_size: int | None = None,
) -> tuple[list[VideoResult], dict[str, str]]:
    """Detect objects in some videos, one after the other, and write ``videos.json`` about them.

    Args:
        videos: video files or folders of frames.
        folder: made if it is missing; gets the files of `predict_video` for each.
        detector: the model.
        parameters: of windows, merging and the score threshold.
        classes: names of the model's classes, or indices as text.
        protocol: how it was done, for ``videos.json``; plain values.
        max_drawing_size: see `predict_video`.

    Returns:
        What happened to each video, and video -> reason of those without results: they could not
        be read at all, or the model refused a frame. After an interruption the rest is not begun.

    Raises:
        OSError: a result cannot be written.
        ValueError: a drawn video would replace one that is read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # a video called as the summary is must not lose its results to that
    names = output_names([Path(SUMMARY_NAME), *map(_titled, videos)])[1:]
    drawings = {(folder / f"{name}.mp4").resolve() for name in names}
    for path in videos:
        if path.resolve() in drawings:
            raise ValueError(f"the drawn video would replace {path}; choose another --output")
    results: list[VideoResult] = []
    unreadable: dict[str, str] = {}
    for path, name in zip(videos, names):
        try:
            result = predict_video(
                path,
                name,
                folder,
                detector,
                parameters,
                num_classes=len(classes),
                max_drawing_size=max_drawing_size,
            )
        except ValueError as error:
            unreadable[str(path)] = str(error)
            continue
        results.append(result)
        if not result.complete:
            break
    summary = {
        "protocol": dict(protocol),
        "classes": list(classes),
        "videos": [asdict(result) for result in results],
        "unreadable": unreadable,
    }
    write_atomically(folder / SUMMARY_NAME, (json.dumps(summary, indent=1) + "\n").encode())
    return results, unreadable


def describe_results(
    results: Sequence[VideoResult], unreadable: Mapping[str, str]
) -> tuple[str, str]:
    """Say what was found, and what was not done.

    Args:
        results: of `predict_videos`.
        unreadable: likewise.

    Returns:
        a line, and lines about what could not be used, "" if there is nothing to say.
    """
    frames = sum(result.num_frames for result in results)
    seconds = sum(result.seconds for result in results)
    found = sum(result.num_detections for result in results)
    below = sum(result.below_threshold for result in results)
    text = (
        f"{found} detections in {frames} frames of {len(results)} videos ({below} more below the "
        f"score threshold), {seconds / max(frames, 1):.3f} seconds per frame"
    )
    problems = [f"  {reason}" for reason in unreadable.values()]
    for result in results:
        problems += [f"  {result.file}, frame {n}: {reason}" for n, reason in result.failed]
        if result.non_finite:
            problems.append(
                f"  {result.file}: {result.non_finite} detections were not finite and are left "
                "out: are these the right weights?"
            )
    head = f"{len(problems)} problems:\n" if problems else ""
    return text, head + "\n".join(problems)


def _titled(path: Path) -> Path:
    """The path whose name tells videos apart: frames often lie in ``<video>/img1``."""
    path = Path(os.path.abspath(path))  # "." is no name
    return path.parent if path.is_dir() and path.name in _FRAME_FOLDERS else path


def _detect(
    clip: Sequence[np.ndarray],
    detector: DetectClips,
    parameters: WindowParameters,
    result: VideoResult,
) -> BoxDetections:
    """The detections of the newest frame; counts them."""
    result.size = clip[0].shape[:2]
    start = time.perf_counter()
    found, counts = detect_in_clip(clip, detector, parameters)
    result.seconds += time.perf_counter() - start
    result.num_frames += 1
    result.num_detections += len(found.scores)
    result.below_threshold += counts["detections_dropped_below_score_floor"]
    result.non_finite += counts["detections_dropped_not_finite"]
    return found


def _draw(image: np.ndarray, found: BoxDetections, max_size: int | None) -> np.ndarray:
    longer = max(image.shape[:2])
    zoom = 2 if longer <= _SMALL_FRAME else 1
    colors = [class_color(index) for index in found.class_index.tolist()]
    canvas = draw_tracked_boxes(image, found.boxes, zoom=zoom, colors=colors)
    if max_size is not None and zoom * longer > max_size:
        sides = [max(1, round(side * max_size / longer)) for side in image.shape[1::-1]]
        canvas = cv2.resize(canvas, sides, interpolation=cv2.INTER_AREA)
    return canvas
