"""VISO: planes, cars, ships and trains in satellite videos.

The part ``mot`` has a folder for each video; ``coco`` has all frames of a split in one folder,
numbered through, and does not say where its videos begin.
"""

from __future__ import annotations

import bisect
import logging
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode
from tqdm import tqdm

from rsd2.data.formats.label_report import LabelReport
from rsd2.data.formats.mot import MotRow, read_mot_rows
from rsd2.data.windows.video_clips import NUM_FRAMES, add_windows, list_frames
from rsd2.io.image_io import read_image_size
from rsd2.io.text import TextError

from .coco_boxes import load_coco_boxes

VISO_CLASSES = ("plane", "car", "ship", "train")
VISO_SPLITS = ("train", "val", "test")

VISO_CAR_FIRST_FRAMES = {
    "train": (
        1, 261, 587, 912, 1238, 1564, 1890, 2216, 2516, 2841, 3167, 3870, 4170, 4900, 5650, 6131,
        6611, 7314, 7714, 8114, 8714,
    ),
    "val": (1, 326, 651, 1381, 1861, 2061, 2360),
}  # fmt: skip
"""First frames of the videos in ``coco/car``, as MICML's authors list them for their copy.

In their copy each split counts from 1. In the current release only the training split does.
"""

_logger = logging.getLogger(__name__)


def load_viso_mot(
    root: str | Path,
    class_name: str,
    *,
    videos: Sequence[str] | None = None,
    num_frames: int = NUM_FRAMES,
    report: LabelReport | None = None,
) -> list[dict]:
    """Read the videos of a class from ``mot/<class>/<video>/{img,gt/gt.txt}``.

    Args:
        root: the folder ``viso``.
        class_name: of ``VISO_CLASSES``; in the videos of a class nothing else is labelled.
        videos: names of the videos, because VISO has no list of splits here; None for all.
        num_frames: length of the windows, >= 1.
        report: is filled if given.

    Returns:
        a dict for each frame, also those without object, as of ``load_rscardata``, with
        ``image_id`` ``<video>/<frame>``, ``category_id`` 0 and ``track_id``.

    Raises:
        FileNotFoundError: if a folder or a file of rows is missing, or there is no video.
        ValueError: for an unknown class or video, or if no file of rows can be read. One that
            cannot is reported, and its video left out.
    """
    if class_name not in VISO_CLASSES:
        raise ValueError(f"class_name must be one of {', '.join(VISO_CLASSES)}, got {class_name!r}")
    base, report = Path(root) / "mot" / class_name, LabelReport() if report is None else report
    if not base.is_dir():
        raise FileNotFoundError(f"There is no folder of videos {base}; put VISO's part mot there.")
    present = sorted(path.name for path in base.iterdir() if (path / "img").is_dir())
    if not present:
        raise FileNotFoundError(f"{base} holds no <video>/img; put the videos of VISO there.")
    unknown = sorted(set(videos or ()) - set(present))
    if unknown:
        raise ValueError(f"{base} has no videos {unknown}; it has {present}")
    records, frames = [], {}
    for video in tqdm(present if videos is None else list(videos), desc=f"VISO {class_name}"):
        path = base / video / "gt" / "gt.txt"
        try:
            rows = read_mot_rows(path, report)
        except TextError as error:
            report.add_unreadable(path, error)
            continue  # unlabelled, which is not the same as a video without objects
        frames[video] = list_frames(base / video / "img", report)
        records += _make_records(video, frames[video], rows, base / video, report)
    if not records:
        report.raise_if_any(str(base))
    report.images += len(records)
    add_windows(records, frames, num_frames, report)
    report.log(_logger, f"{base}")
    return records


def load_viso_coco(
    root: str | Path,
    class_name: str,
    split: str,
    *,
    first_frames: Sequence[int] | None = None,
    num_frames: int = NUM_FRAMES,
    missing_image: str = "error",
    report: LabelReport | None = None,
) -> list[dict]:
    """Read ``coco/<class>/Annotations/instances_<split>2017.json`` and its frames as videos.

    Args:
        root: the folder ``viso``.
        class_name: of ``VISO_CLASSES``.
        split: ``"train"``, ``"val"`` or ``"test"``.
        first_frames: number of the first frame of each video, so that no window crosses into
            another video; None for those of ``VISO_CAR_FIRST_FRAMES``.
        num_frames: length of the windows, >= 1.
        missing_image: ``"error"``, or ``"drop"`` and report frames that are not there.
        report: is filled if given.

    Returns:
        dicts as of ``load_rscardata``; ``video_id`` is ``001`` and so on, ``frame_id`` counts from
        1 in each video.

    Raises:
        FileNotFoundError: if a file or folder is missing, or frames are and the policy says so.
        ValueError: for a broken file or a wrong argument, or if it is not known where the videos
            begin.
    """
    if class_name not in VISO_CLASSES or split not in VISO_SPLITS:
        raise ValueError(
            f"class_name must be one of {', '.join(VISO_CLASSES)} and split one of "
            f"{', '.join(VISO_SPLITS)}, got {class_name!r} and {split!r}"
        )
    base, report = Path(root) / "coco" / class_name, LabelReport() if report is None else report
    folder = base / f"{split}2017"
    records = load_coco_boxes(
        base / "Annotations" / f"instances_{split}2017.json",
        folder,
        (class_name,),
        missing_image=missing_image,
        report=report,
    )
    logged = report.total
    on_disk = list_frames(folder, report)
    firsts = _first_frames(class_name, split, first_frames, on_disk)
    frames: dict[str, dict[int, Path]] = defaultdict(dict)
    for number, path in on_disk.items():
        video, frame = _place(number, firsts)
        frames[video][frame] = path
    placed = [record for record in records if Path(record["file_name"]).stem.isdecimal()]
    for record in placed:
        record["video_id"], record["frame_id"] = _place(int(Path(record["file_name"]).stem), firsts)
    add_windows(placed, frames, num_frames, report)
    if report.total > logged:
        report.log(_logger, f"{base}, {split}")
    return placed


def register_viso_mot(
    name: str, root: str | Path, class_name: str, metadata: dict | None = None, **options
) -> None:
    """Register the videos of a class.

    Args:
        name: of the data set.
        root: the folder ``viso``.
        class_name: of ``VISO_CLASSES``.
        metadata: additional entries of the metadata catalog; ``thing_classes`` is the class.
        options: of ``load_viso_mot``.
    """
    DatasetCatalog.register(name, partial(load_viso_mot, root, class_name, **options))
    MetadataCatalog.get(name).set(thing_classes=[class_name], **(metadata or {}))


def register_viso_coco(
    name: str,
    root: str | Path,
    class_name: str,
    split: str,
    metadata: dict | None = None,
    **options,
) -> None:
    """Register a split of a class.

    Args:
        name: of the data set.
        root: the folder ``viso``.
        class_name: of ``VISO_CLASSES``.
        split: ``"train"``, ``"val"`` or ``"test"``.
        metadata: additional entries of the metadata catalog; ``thing_classes`` is the class.
        options: of ``load_viso_coco``.
    """
    DatasetCatalog.register(name, partial(load_viso_coco, root, class_name, split, **options))
    MetadataCatalog.get(name).set(thing_classes=[class_name], **(metadata or {}))


def _make_records(
    video: str, frames: dict[int, Path], rows: list[MotRow], base: Path, report: LabelReport
) -> list[dict]:
    """The dicts of one video; rows of frames that are not there are reported."""
    annotations = defaultdict(list)
    for row in rows:
        if row.frame not in frames:
            path = base / "gt" / "gt.txt"
            report.add("label_without_image", path, row.line, f"no frame {row.frame} in {base}")
            continue
        annotations[row.frame].append(
            {
                "bbox": list(row.box),
                "bbox_mode": BoxMode.XYWH_ABS,
                "category_id": 0,
                "iscrowd": 0,
                "track_id": row.track,
            }
        )
    if not frames:
        return []
    height, width = read_image_size(next(iter(frames.values())))
    return [
        {
            "file_name": str(path),
            "image_id": f"{video}/{path.stem}",
            "height": height,
            "width": width,
            "video_id": video,
            "frame_id": number,
            "annotations": annotations[number],
        }
        for number, path in frames.items()
    ]


def _first_frames(
    class_name: str, split: str, given: Sequence[int] | None, frames: dict[int, Path]
) -> list[int]:
    """Sorted first frames of the videos, given or known."""
    start = min(frames, default=1)
    if given is not None:
        if not given or min(given) > start:
            raise ValueError(
                f"first_frames must hold the first frame of the first video, {start}, got "
                f"{list(given)}"
            )
        return sorted(given)
    known = VISO_CAR_FIRST_FRAMES.get(split) if class_name == "car" else None
    if known is None or start != known[0]:
        raise ValueError(
            f"It is not known where the videos of coco/{class_name}, {split}, begin: its frames "
            f"count from {start}. Pass first_frames=[{start}, ...], the first frame of each video."
        )
    return list(known)


def _place(number: int, firsts: list[int]) -> tuple[str, int]:
    """(video, frame from 1) of a frame that is numbered through."""
    index = bisect.bisect_right(firsts, number) - 1
    return f"{index + 1:03d}", number - firsts[index] + 1
