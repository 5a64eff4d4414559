"""DroneCrowd: heads of people in videos from drones, as boxes or as points.

A frame is ``imgSSSFFF.jpg``: clip S, and frame F counted from 1.
"""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from functools import partial
from pathlib import Path

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode
from tqdm import tqdm

from rsd2.data.formats.label_report import LabelReport
from rsd2.data.formats.values import LARGEST_COORDINATE
from rsd2.data.windows.video_clips import NUM_FRAMES, add_frame, add_windows
from rsd2.io.image_io import IMAGE_EXTENSIONS, read_image_size
from rsd2.io.mat_tables import MatTableError, read_mat_table

DRONE_CROWD_CLASSES = ("head",)
DRONE_CROWD_SPLITS = ("train", "val", "test")
POINT_SIDE = 20.0
"""Side of the box that the dataset's toolkit puts around a point, pixels."""

_NAME = re.compile(r"img(\d{3})(\d{3})")
_logger = logging.getLogger(__name__)


def load_drone_crowd(
    root: str | Path,
    split: str,
    source: str = "boxes",
    *,
    num_frames: int = NUM_FRAMES,
    point_side: float = POINT_SIDE,
    report: LabelReport | None = None,
) -> list[dict]:
    """Read a split of DroneCrowd into dataset dicts of clips.

    Args:
        root: folder that holds ``train_data``, ``val_data``, ``test_data`` and ``annotations``.
        split: ``"train"``, ``"val"`` (images that the test split has too) or ``"test"``.
        source: ``"boxes"``: ``annotations/<clip>.mat``, variable ``anno`` with rows frame (from
            0), track, x1, y1, x2, y2; ``"points"``: ``ground_truth/GT_<image>.mat``, variable
            ``image_info`` with rows x, y, track. The centre of a box is its point.
        num_frames: length of the windows, >= 1.
        point_side: side of the boxes around points, pixels, > 0.
        report: report to fill, if given.

    Returns:
        a dict for each frame with readable labels, as ``load_rscardata`` returns it, with
        ``image_id`` ``imgSSSFFF``, ``video_id`` ``SSS``, ``category_id`` 0, and ``track_id`` if the
        points have it.

    Raises:
        FileNotFoundError: if a folder is missing or holds no frame, or the labels of a clip or
            frame are missing.
        ValueError: for a wrong argument, or if no label file can be read at all.
    """
    if split not in DRONE_CROWD_SPLITS or source not in ("boxes", "points") or point_side <= 0:
        raise ValueError(
            f"split must be one of {', '.join(DRONE_CROWD_SPLITS)}, source 'boxes' or 'points' and "
            f"point_side > 0, got {split!r}, {source!r} and {point_side}"
        )

    root, report = Path(root), LabelReport() if report is None else report
    folder = root / f"{split}_data"
    clips = _list_clips(folder / "images", report)
    records = []
    for clip, frames in tqdm(clips.items(), desc=f"DroneCrowd {split}", unit="clip"):
        # All frames of a clip have the size of its first one.
        height, width = read_image_size(next(iter(frames.values())))
        rows = (
            _read_boxes(root / "annotations" / f"{int(clip):05d}.mat", frames, report)
            if source == "boxes"
            else _read_points(folder / "ground_truth", frames, point_side, report)
        )
        for number, path in frames.items():
            if rows.get(number) is None:
                continue  # its labels cannot be read, which is not the same as no object
            record = {"file_name": str(path), "image_id": path.stem, "video_id": clip}
            record |= {"height": height, "width": width, "frame_id": number}
            records.append({**record, "annotations": rows[number]})
            report.objects += len(rows[number])

    report.images += len(records)
    # Without a usable frame the report's problems are the error.
    if not records:
        report.raise_if_any(f"{folder}, {source}")
    add_windows(records, clips, num_frames, report)
    report.log(_logger, f"{folder}, {source}")
    return records


def register_drone_crowd(
    name: str,
    root: str | Path,
    split: str,
    source: str = "boxes",
    metadata: dict | None = None,
    **options,
) -> None:
    """Register a split of DroneCrowd.

    Args:
        name: name of the dataset.
        root: folder that holds the folders of the splits and ``annotations``.
        split: ``"train"``, ``"val"`` or ``"test"``.
        source: ``"boxes"`` or ``"points"``.
        metadata: additional entries of the metadata catalog; ``thing_classes`` is ``head``.
        options: further arguments of ``load_drone_crowd``.
    """
    DatasetCatalog.register(name, partial(load_drone_crowd, root, split, source, **options))
    MetadataCatalog.get(name).set(thing_classes=list(DRONE_CROWD_CLASSES), **(metadata or {}))


def _list_clips(folder: Path, report: LabelReport) -> dict[str, dict[int, Path]]:
    """Clip -> frame -> file."""
    if not folder.is_dir():
        raise FileNotFoundError(
            f"There is no image folder {folder}; put DroneCrowd's frames there."
        )

    clips: dict[str, dict[int, Path]] = defaultdict(dict)
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in IMAGE_EXTENSIONS:
            continue
        match = _NAME.fullmatch(path.stem)
        if match is None:
            report.add("frame_number", path, None, f"{path.name} is not named imgSSSFFF")
            continue
        add_frame(clips[match[1]], int(match[2]), path, report)

    if not clips:
        raise FileNotFoundError(
            f"The image folder {folder} holds no frame imgSSSFFF.jpg; put DroneCrowd's there."
        )

    return dict(clips)


def _read_boxes(path: Path, frames: dict[int, Path], report: LabelReport) -> dict[int, list[dict]]:
    """Return the annotations of each frame of a clip from its table of boxes."""
    rows = _load_table(path, "anno", 6, report)
    if rows is None:
        return {}
    # A frame without rows shows no head, so it gets an empty list.
    found: dict[int, list[dict]] = {number: [] for number in frames}
    for row, (frame, track, x0, y0, x1, y1) in enumerate(rows[:, :6], start=1):
        where = f"row {row} of anno"
        if frame % 1 or track % 1:
            message = f"{where}: frame {frame:g} or track {track:g} is not a whole number"
            report.add("track_number", path, None, message)
        # The table counts frames from 0, the file names from 1.
        elif int(frame) + 1 not in frames:
            report.add("label_without_image", path, None, f"{where}: no frame {int(frame) + 1}")
        elif not (x1 > x0 and y1 > y0):
            report.add("box_without_area", path, None, f"{where}: {(x0, y0, x1, y1)}")
        else:
            box = (float(x0), float(y0), float(x1 - x0), float(y1 - y0))
            found[int(frame) + 1].append(_annotation(box, int(track)))

    return found


def _read_points(
    folder: Path, frames: dict[int, Path], side: float, report: LabelReport
) -> dict[int, list[dict]]:
    """Return the annotations of each frame of a clip: squares around its points."""
    found = {}
    for number, image in frames.items():
        rows = _load_table(folder / f"GT_{image.stem}.mat", "image_info", 2, report)
        if rows is None:
            continue
        found[number] = [
            _annotation(
                (float(row[0]) - side / 2, float(row[1]) - side / 2, side, side),
                int(row[2]) if len(row) > 2 and row[2] % 1 == 0 else None,
            )
            for row in rows
        ]
        strange = [row[2] for row in rows if len(row) > 2 and row[2] % 1]
        if strange:
            message = f"{len(strange)} tracks are not whole numbers, the first is {strange[0]:g}"
            report.add("track_number", folder / f"GT_{image.stem}.mat", None, message, "kept")

    return found


def _load_table(path: Path, key: str, columns: int, report: LabelReport) -> np.ndarray | None:
    """Return the (N, C) float64 rows of a variable, unwrapping cells; None if unreadable."""
    if not path.is_file():
        raise FileNotFoundError(f"There is no label file {path}; put it there, or its frames away.")
    try:
        table = read_mat_table(path, key, columns)
    except MatTableError as error:
        kind = "mat_version" if error.is_new_version else "mat_file"
        report.add(kind, path, None, str(error))
        return None

    report.label_files += 1
    whole = (np.abs(table) < LARGEST_COORDINATE).all(axis=1)  # False for NaN
    for row in np.flatnonzero(~whole):
        report.add("non_finite", path, None, f"row {row + 1} of {key}: {table[row].tolist()}")
    return table[whole]


def _annotation(box: tuple[float, float, float, float], track: int | None) -> dict:
    annotation = {"bbox": list(box), "bbox_mode": BoxMode.XYWH_ABS, "category_id": 0, "iscrowd": 0}
    return annotation if track is None else {**annotation, "track_id": track}
