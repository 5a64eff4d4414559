"""The label formats by name, and detection of the format of files."""

from __future__ import annotations

from pathlib import Path

from .coco_polygons import CocoPolygons, CocoRotated, CvatCoco
from .cvat import CvatXml
from .dota_text import DotaText
from .fair1m import Fair1m
from .foreign import describe_folder, describe_format
from .hrsc import Hrsc
from .label_format import LabelFormat
from .label_sample import look_at
from .label_studio import LabelStudio
from .labelme import LabelMe
from .map_labels import GeoJson, GeoPackage
from .rolabelimg import RoLabelImg
from .soda import SodaA
from .yolo_obb import YoloObb

LABEL_FORMATS: dict[str, LabelFormat] = {
    one.name: one
    for one in (
        DotaText(),
        YoloObb(),
        RoLabelImg(),
        CvatXml(),
        CvatCoco(),
        CocoPolygons(),
        CocoRotated(),
        LabelStudio(),
        LabelMe(),
        Hrsc(),
        Fair1m(),
        SodaA(),
    )
}
"""Name -> format in pixels; ``CocoRotated`` has Detectron2's angle convention."""

MAP_FORMATS: dict[str, LabelFormat] = {one.name: one for one in (GeoJson(), GeoPackage())}
"""Name -> format in coordinates of the ground, which needs the rasters to be read and written."""

ALL_FORMATS = LABEL_FORMATS | MAP_FORMATS


def detect_format(path: str | Path) -> LabelFormat:
    """Tell the format of labels from their content.

    Args:
        path: a label file or a folder of them.

    Returns:
        the format.

    Raises:
        FileNotFoundError: if there is no such file or folder.
        ValueError: if no format is recognized; the message says what the labels look like.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"There are no labels {path}; correct the path.")

    # The file is read once for all formats; large JSON files take seconds each time.
    sample = look_at(path)
    for one in ALL_FORMATS.values():
        if one.recognizes(sample):
            return one

    looks = describe_folder(path) if path.is_dir() else ""
    if sample.kind:
        looks = f"{sample.file}: {describe_format(sample.kind)}."
    raise ValueError(
        f"The format of the labels {path} is not recognized; name it, one of "
        f"{', '.join(ALL_FORMATS)}. {looks}".rstrip()
    )


def find_format(name: str, path: str | Path) -> LabelFormat:
    """Find a format by its name, or by the content of labels.

    Args:
        name: a key of ``ALL_FORMATS``, or ``"auto"``.
        path: a label file or a folder of them.

    Returns:
        the format.

    Raises:
        FileNotFoundError: see `detect_format`.
        ValueError: for an unknown name, or see `detect_format`.
    """
    if name == "auto":
        return detect_format(path)
    if name not in ALL_FORMATS:
        raise ValueError(f"no label format {name!r}; known are auto, {', '.join(ALL_FORMATS)}")
    return ALL_FORMATS[name]
