"""Writes synthetic videos in RsCarData's format: frames, COCO files of both labels, VOC files.

Layout and names are those of RsCarData with HiEUM's additions, so that what reads one reads the
other.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from rsd2.data.formats.rscardata import RSCARDATA_SPLITS
from rsd2.io.files import make_output_folder, write_atomically
from rsd2.io.image_io import write_image
from rsd2.synthetic.writer import NumberedFolder

from .config import VideoConfig
from .scene import VideoLabel, VideoPlan, VideoRenderer, plan_video

_SAMPLED_FRAMES = 8  # of each video, for the statistics of its pixels


def write_videos(
    folder: str | Path,
    split: str,
    num_videos: int,
    config: VideoConfig,
    seed: int = 0,
    num_workers: int = 0,
    progress: bool = True,
    shard: tuple[int, int] = (0, 1),
) -> Path:
    """Write one split of a folder in RsCarData's format, or finish one that was begun.

    Videos are named ``001`` and so on, and the folder of test frames ``test1024``, whatever their
    size is. A video is complete when its folder of frames is there and its record
    ``records/<split>/001.json`` is there; the COCO files and ``videos_<split>.json`` (parameters)
    come when all are.

    Args:
        folder: the root; made if it is missing.
        split: ``"train"`` or ``"test"``.
        num_videos: of the finished split, >= 1; it may be enlarged.
        config: what the videos look like.
        seed: of the split, >= 0; give the splits different ones.
        num_workers: processes that draw; 0 draws in this one. The files do not depend on it. With
            more than 0, a script must call this under ``if __name__ == "__main__"``.
        progress: show a progress bar.
        shard: (rank, number of processes) when several processes draw one split.

    Returns:
        The path of ``videos_<split>.json``.

    Raises:
        ValueError: if a number is out of range or the split unknown.
        FolderTakenError: if the split is there with other parameters or more videos.
    """
    folder = Path(folder)
    if split not in RSCARDATA_SPLITS:
        raise ValueError(f"split must be one of {', '.join(RSCARDATA_SPLITS)}, got {split!r}")
    parameters = {**config.to_dict(), "seed": seed}
    head = {"parameters": parameters, "split": split, "num_videos": num_videos}
    path = folder / f"videos_{split}.json"
    files = partial(_video_files, folder, split)
    work = partial(_write_video, folder, split, config, seed)
    gather = partial(_gather, folder, split, num_videos, config.old_label_drop)
    holds = f"synthetic {split} videos"
    videos = NumberedFolder(path, head, holds, num_videos, files, work, gather)
    videos.finish(num_workers, progress, shard)
    return path


def read_video_records(folder: str | Path, split: str) -> Iterator[dict]:
    """Read the records of a split's videos, which the statistics are made from.

    Args:
        folder: the root.
        split: ``"train"`` or ``"test"``.

    Yields:
        for each video ``name``, ``mode``, ``base_size``, ``drift`` (2,), ``image`` (mean, standard
        deviation), ``size`` (height, width), ``frames`` (of each frame rows track, x, y, width,
        height), and by track ``contrast`` (grey levels) and ``speed`` (pixels per frame).
    """
    for path in sorted((Path(folder) / "records" / split).glob("*.json")):
        yield json.loads(path.read_text(encoding="utf-8"))


def make_record(plan: VideoPlan) -> dict:
    """Put what is known about a video without its pixels into plain values.

    Args:
        plan: of the video.

    Returns:
        as ``read_video_records`` yields, without ``image``.
    """
    rows = [[[label.track, *label.box] for label in labels] for labels in plan.labels]
    return {
        "name": video_name(plan.index),
        "mode": plan.mode,
        "base_size": round(plan.base_size, 3),
        "drift": [round(float(value), 5) for value in plan.drift],
        "size": list(plan.config.size),
        "frames": rows,
        "contrast": [round(float(value), 2) for value in plan.contrast],
        "speed": [round(float(value), 4) for value in plan.speed],
    }


def video_name(index: int) -> str:
    """Return the folder of a video.

    Args:
        index: of the video, from 0.

    Returns:
        For example ``013`` for 12.
    """
    return f"{index + 1:03d}"


def _video_files(folder: Path, split: str, index: int) -> list[Path]:
    """The folder of a video and its record, which stands for the whole."""
    name = video_name(index)
    images = folder / RSCARDATA_SPLITS[split].images
    return [images / name, folder / "records" / split / f"{name}.json"]


def _write_video(folder: Path, split: str, config: VideoConfig, seed: int, index: int) -> None:
    """Frames first, the record last, so that it stands for a complete video."""
    names, plan = RSCARDATA_SPLITS[split], plan_video(config, seed, index)
    base, record_path = _video_files(folder, split, index)
    make_output_folder(base / "img1")
    if names.voc:
        make_output_folder(base / names.voc)
    renderer = VideoRenderer(plan)
    dropped = _dropped_tracks(make_record(plan), config.old_label_drop)
    sampled = set(np.linspace(0, config.num_frames - 1, _SAMPLED_FRAMES).astype(int).tolist())
    options = (cv2.IMWRITE_JPEG_QUALITY, config.jpeg_quality)
    moments = []
    for frame in range(config.num_frames):
        image = renderer.frame(frame)
        if frame in sampled:
            pixels = image.astype(np.float64)
            moments.append((pixels.mean(), (pixels**2).mean()))
        name = f"{frame + 1:06d}"
        write_image(base / "img1" / f"{name}.jpg", image, options)
        if names.voc:
            labels = [label for label in plan.labels[frame] if label.track not in dropped]
            write_atomically(
                base / names.voc / f"{name}.xml", _voc(f"{name}.jpg", config.size, labels)
            )
    mean, square = np.mean(moments, axis=0)
    record = make_record(plan) | {"image": [float(mean), float(np.sqrt(square - mean**2))]}
    write_atomically(record_path, json.dumps(record))


def _dropped_tracks(record: dict, share: float) -> set[int]:
    """Tracks that the old labels lack: the share that is seen worst."""
    tracks = sorted({row[0] for rows in record["frames"] for row in rows})
    seen = np.abs(record["contrast"]) * record["speed"]
    worst = sorted(tracks, key=lambda track: seen[track - 1])
    return set(worst[: round(share * len(tracks))])


def _voc(name: str, size: tuple[int, int], labels: list[VideoLabel]) -> str:
    """A VOC file; corners as integers, as RsCarData has them."""
    lines = [
        "<annotation>",
        f"  <filename>{name}</filename>",
        f"  <size><width>{size[1]}</width><height>{size[0]}</height><depth>3</depth></size>",
    ]
    for _, (x, y, width, height) in labels:
        corners = f"<xmin>{x}</xmin><ymin>{y}</ymin><xmax>{x + width}</xmax><ymax>{y + height}"
        lines.append(f"  <object><name>car</name><bndbox>{corners}</ymax></bndbox></object>")
    return "\n".join([*lines, "</annotation>"]) + "\n"


def _gather(folder: Path, split: str, num_videos: int, drop: float) -> dict:
    """Write the COCO files of a complete split; the record gets no more values."""
    names = RSCARDATA_SPLITS[split]
    images: list[dict] = []
    old: list[dict] = []
    new: list[dict] = []
    first_track = 0  # tracks are numbered through the whole file
    for index in range(num_videos):
        record = json.loads(_video_files(folder, split, index)[-1].read_text(encoding="utf-8"))
        dropped = _dropped_tracks(record, drop)
        height, width = record["size"]
        for frame, rows in enumerate(record["frames"], start=1):
            file_name = f"{names.images}/{record['name']}/img1/{frame:06d}.jpg"
            image = {"id": len(images) + 1, "file_name": file_name}
            image |= {"height": height, "width": width, "video_id": index + 1}
            images.append({**image, "video_frame_id": frame})
            for track, *box in rows:
                entry = {"image_id": image["id"], "category_id": 1, "bbox": box}
                entry |= {"area": box[2] * box[3], "iscrowd": 0}
                new.append({"id": len(new) + 1, **entry, "track_id": first_track + track})
                if track not in dropped:
                    old.append({"id": len(old) + 1, **entry})
        first_track += len(record["speed"])
    categories = [{"id": 1, "name": "car"}]
    plain = [
        {key: image[key] for key in ("id", "file_name", "height", "width")} for image in images
    ]

    make_output_folder(folder / "annotations")
    for path, shown, labels in ((names.old, plain, old), (names.new, images, new)):
        content = {"images": shown, "annotations": labels, "categories": categories}
        write_atomically(folder / path, json.dumps(content) + "\n")
    return {}
