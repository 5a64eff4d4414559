"""RsCarData: moving cars in satellite videos, with the labels of DSFNet and those of HiEUM.

Synthetic videos (``tools/make_synthetic.py --kind video``) have the same format. Both labels exist
as COCO files and, for the test videos, as VOC files in folders.
"""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode
from tqdm import tqdm

from rsd2.data.formats.foreign import describe_format, guess_xml
from rsd2.data.formats.label_report import LabelReport
from rsd2.data.formats.rscardata import RSCARDATA_SPLITS
from rsd2.data.formats.values import is_coordinate, parse_number
from rsd2.data.formats.xml_labels import line_of, read_xml
from rsd2.data.windows.video_clips import NUM_FRAMES, add_windows, list_frames
from rsd2.io.image_io import read_image_size

from .coco_boxes import load_coco_boxes

RSCARDATA_CLASSES = ("car",)
RSCARDATA_LABELS = ("old", "new", "old_voc", "new_voc")

_NEW_VOC, _FRAMES = "labeleddata20230227", "img1"
_ALIASES = {"Car": "car", "vehicle": "car"}
_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_logger = logging.getLogger(__name__)


def load_rscardata(
    root: str | Path,
    split: str,
    labels: str = "old",
    *,
    coco_file: str | None = None,
    num_frames: int = NUM_FRAMES,
    missing_image: str = "error",
    report: LabelReport | None = None,
) -> list[dict]:
    """Read a split of RsCarData into dataset dicts of clips.

    Args:
        root: folder that holds ``annotations`` and ``images``.
        split: ``"train"`` or ``"test"``.
        labels: ``"old"``: DSFNet's COCO files, to which the published AP and F1 of DSFNet and MICML
            refer; ``"new"``: HiEUM's COCO files with tracks; ``"old_voc"``: ``xml_det`` beside the
            frames; ``"new_voc"``: the folder ``labeleddata20230227``. The last two exist for the
            test videos; frames without a file are dropped, as the official evaluation does.
        coco_file: COCO file under ``root``, for sets with other file names; None takes the
            name that RsCarData has for ``"old"`` or ``"new"`` labels.
        num_frames: length of the windows, >= 1.
        missing_image: ``"error"``, or ``"drop"`` and report listed frames whose file is missing.
        report: report to fill, if given.

    Returns:
        a dict for each labelled frame: ``file_name``, ``image_id``, ``height``, ``width``,
        ``video_id`` (its folder's name), ``frame_id`` (from 1), ``frame_file_names`` (see
        ``add_windows``) and ``annotations`` (``bbox`` XYWH_ABS in pixels, ``category_id`` 0,
        ``track_id`` where labels have it).

    Raises:
        FileNotFoundError: if a file, a folder or all videos are missing, or if frames are missing
            and the policy says ``"error"``.
        ValueError: for a broken file or a wrong argument, or if no frame can be used.
    """
    if split not in RSCARDATA_SPLITS or labels not in RSCARDATA_LABELS:
        raise ValueError(
            f"split must be one of {', '.join(RSCARDATA_SPLITS)} and labels one of "
            f"{', '.join(RSCARDATA_LABELS)}, got {split!r} and {labels!r}"
        )

    root, names = Path(root), RSCARDATA_SPLITS[split]
    report = LabelReport() if report is None else report
    logged = 0
    if labels in ("old", "new"):
        coco = load_coco_boxes(
            root / (coco_file or (names.old if labels == "old" else names.new)),
            root,
            RSCARDATA_CLASSES,
            aliases=_ALIASES,
            missing_image=missing_image,
            report=report,
        )
        # `load_coco_boxes` has logged its problems; only later ones need another line.
        logged = report.total
        records = [record for record in coco if _place_in_video(record, report)]
        if coco and not records:
            report.raise_if_any(f"{root}, {split}, {labels} labels")
    else:
        records = _load_voc(root / names.images, None if labels == "old_voc" else root, report)

    # Windows need the frames on disk, also those without labels.
    videos = {record["video_id"]: Path(record["file_name"]).parent for record in records}
    frames = {video: list_frames(folder, report) for video, folder in videos.items()}
    add_windows(records, frames, num_frames, report)
    if labels.endswith("voc") or report.total > logged:
        report.log(_logger, f"{root}, {split}, {labels} labels")
    return records


def register_rscardata(
    name: str,
    root: str | Path,
    split: str,
    labels: str = "old",
    metadata: dict | None = None,
    **options,
) -> None:
    """Register a split of RsCarData.

    Args:
        name: name of the dataset.
        root: folder that holds ``annotations`` and ``images``.
        split: ``"train"`` or ``"test"``.
        labels: see ``load_rscardata``.
        metadata: additional entries of the metadata catalog; ``thing_classes`` is ``car``.
        options: further arguments of ``load_rscardata``.
    """
    DatasetCatalog.register(name, partial(load_rscardata, root, split, labels, **options))
    extra = {"thing_classes": list(RSCARDATA_CLASSES), "labels": labels, "video_root": str(root)}
    MetadataCatalog.get(name).set(**extra, **(metadata or {}))


def _place_in_video(record: dict, report: LabelReport) -> bool:
    """Add video and frame number from ``<video>/img1/<number>.jpg``; return False without them."""
    path = Path(record["file_name"])
    if not path.stem.isdecimal():
        message = f"{record['image_id']} is not the number of a frame"
        report.add("frame_number", path, None, message)
        return False

    if Path(record["image_id"]).parts[-2:-1] != (_FRAMES,):  # else videos would mix
        message = f"{record['image_id']} does not end in <video>/{_FRAMES}/<number>"
        report.add("frame_folder", path, None, message)
        return False

    record["video_id"], record["frame_id"] = path.parts[-3], int(path.stem)
    return True


def _load_voc(images: Path, new_root: Path | None, report: LabelReport) -> list[dict]:
    """Return frames that have a VOC file, beside the frames or under ``labeleddata20230227``."""
    if not images.is_dir():
        raise FileNotFoundError(f"There is no folder of videos {images}; put RsCarData there.")
    records = []
    for base in tqdm(sorted(p for p in images.iterdir() if p.is_dir()), desc="VOC labels"):
        folder = base / "xml_det" if new_root is None else new_root / _NEW_VOC / base.name / _FRAMES
        if not folder.is_dir():
            raise FileNotFoundError(f"There is no folder of labels {folder}; put them there.")
        frames = list_frames(base / _FRAMES, report)
        found = (path for path in folder.iterdir() if path.suffix.lower() == ".xml")
        files = {int(path.stem): path for path in found if path.stem.isdecimal()}
        for number in sorted(set(files) - set(frames)):
            report.add("label_without_image", files[number], None, f"no frame {number} in {base}")
        # All frames of a video have the size of its first one.
        size = read_image_size(next(iter(frames.values()))) if frames else (0, 0)
        for number, path in frames.items():
            if number not in files:
                report.add("image_without_label", path, None, f"no {folder.name}/{path.stem}.xml")
                continue
            boxes = read_voc_boxes(files[number], report)
            if boxes is None:
                continue
            records.append(
                {
                    "file_name": str(path),
                    "image_id": path.relative_to(images.parents[1]).as_posix(),
                    "height": size[0],
                    "width": size[1],
                    "video_id": base.name,
                    "frame_id": number,
                    "annotations": [
                        {"bbox": box, "bbox_mode": BoxMode.XYWH_ABS, "category_id": 0, "iscrowd": 0}
                        for box in boxes
                    ],
                }
            )

    report.images += len(records)
    if not records:
        report.raise_if_any(str(images))
        raise FileNotFoundError(f"There is no video in {images}; put RsCarData there.")
    return records


def read_voc_boxes(path: str | Path, report: LabelReport) -> list[list[float]] | None:
    """Read the boxes of a VOC file, regardless of their class.

    Args:
        path: path of the XML file.
        report: report that gets every problem.

    Returns:
        x, y, width, height of each object, pixels; None if the file cannot be read.
    """
    root = read_xml(path, report, lines_of=())
    if root is None:
        return None
    try:
        boxes = [_voc_box(item, index) for index, item in enumerate(root.iter("object"))]
    except _BoxError:
        boxes = []

    if not boxes:  # something is wrong, or there is nothing: look again, now with the lines
        return _read_doubtful_voc(path, report)
    report.label_files += 1
    report.objects += len(boxes)
    return boxes


class _BoxError(ValueError):
    """Kind of problem and message of a broken object."""


def _read_doubtful_voc(path: str | Path, report: LabelReport) -> list[list[float]] | None:
    """Read a VOC file that has broken objects or none again, now with lines for the report."""
    root = read_xml(path, report)
    if root is None:
        return None
    name = guess_xml(root)
    if name not in ("", "Pascal VOC XML"):
        report.add("foreign_format", path, line_of(root), describe_format(name))
        return None
    report.label_files += 1
    boxes = []
    for index, item in enumerate(root.iter("object")):
        try:
            boxes.append(_voc_box(item, index))
        except _BoxError as error:
            kind, message = error.args
            report.add(kind, path, line_of(item), message)

    report.objects += len(boxes)
    return boxes


def _voc_box(item: ElementTree.Element, index: int) -> list[float]:
    """Return x, y, width, height of an object, pixels."""
    where = f"object {index + 1}"
    try:
        box = item.find("bndbox")
        if box is None:
            raise ValueError("no bndbox")
        x0, y0, x1, y1 = [parse_number(box.findtext(key)) for key in _CORNERS]
    except ValueError as error:
        raise _BoxError("voc_object", f"{where}: {error}") from error

    # The same checks as for every other format, so that no reader is more lenient.
    if not is_coordinate(x0, y0, x1, y1):
        raise _BoxError("non_finite", f"{where}: {(x0, y0, x1, y1)}")
    if not (x1 > x0 and y1 > y0):
        raise _BoxError("box_without_area", f"{where}: {(x0, y0, x1, y1)}")
    return [x0, y0, x1 - x0, y1 - y0]
