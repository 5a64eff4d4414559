"""Objects of one scene in COCO's JSON format, as quadrilaterals: polygons and masks of any kind.

Shapes: N objects, H, W of the scene.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rsd2.geo.labels import SceneLabels, keep_objects, quadrilateral

from .coco import CocoImage, load_lists, parse_categories, parse_images
from .label_report import LabelReport
from .values import parse_id

CROWDS = ("detect", "objects", "difficult")

_logger = logging.getLogger(__name__)


def read_coco_shapes(
    path: str | Path,
    scene_files: Sequence[str],
    size: tuple[int, int],
    crowds: str = "detect",
) -> tuple[SceneLabels, np.ndarray]:
    """Read the objects of a scene; a mask or polygon becomes the smallest rectangle around it.

    Label tools list images without objects and start ids at any number, and some set ``iscrowd``
    for every mask because COCO stores only crowds as masks.

    Args:
        path: path of the JSON file.
        scene_files: files of the scene; the reader takes the image entry with the name of one of
            them or, if there is none, the only entry of the scene's size.
        size: H, W of the scene.
        crowds: meaning of ``iscrowd``. ``"objects"``: it is ignored; ``"difficult"``: it marks
            difficult objects, which the DOTA protocol ignores; ``"detect"``: it is ignored, with a
            warning, if all objects of the scene have it, else as ``"difficult"``.

    Returns:
        The objects in the order of the file, and (N,) int64 1 for difficult ones, else 0.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no COCO file, an entry is broken, or no single image of it is the
            scene.
    """
    if crowds not in CROWDS:
        raise ValueError(f"crowds must be one of {', '.join(CROWDS)}, got {crowds!r}")

    path, report = Path(path), LabelReport()
    content = load_lists(path)
    categories = parse_categories(content["categories"], path)
    images = parse_images(content["images"], path, report)
    # One scene has few entries, so a broken one stops here instead of training on half its labels.
    report.raise_if_any(str(path))

    owners = [_identifier(entry, "image_id", index, path) for index, entry in _numbered(content)]
    unknown = [index for index, owner in enumerate(owners) if owner not in images]
    if unknown:
        raise ValueError(
            f"{path}: annotations[{unknown[0]}] belongs to image id {owners[unknown[0]]!r}, which "
            "the file does not have; add the image or remove its annotations"
        )

    image = _choose_image(images, set(owners), scene_files, size, path)
    own = [(i, entry) for i, entry in _numbered(content) if owners[i] == image.number]

    polygons = [quadrilateral(_points(entry, index, size, path)) for index, entry in own]
    names = []
    for index, entry in own:
        category = _identifier(entry, "category_id", index, path)
        if category not in categories:
            raise ValueError(
                f"{path}: annotations[{index}] has the category id {category!r}, which the file "
                "does not have; add it to the categories or correct the id"
            )
        # Classes of the scene pipeline are single words, since DOTA text separates fields by
        # blanks.
        names.append("_".join(categories[category].split()))

    flags = np.array([bool(entry.get("iscrowd", 0)) for _, entry in own], dtype=np.int64)
    if crowds == "objects" or (crowds == "detect" and len(flags) > 0 and flags.all()):
        if flags.any() and crowds == "detect":
            _logger.warning(
                "%s marks all %d objects as crowds (iscrowd 1), so the mark means nothing: they "
                "are taken as objects; crowds='difficult' takes them as what no score counts",
                path,
                len(flags),
            )
        flags = np.zeros_like(flags)

    keep, labels = keep_objects(np.array(polygons), names, size)
    return labels, flags[keep]


def _numbered(content: dict[str, list]) -> list[tuple[int, dict[str, Any]]]:
    return list(enumerate(content["annotations"]))


def _identifier(entry: Any, name: str, index: int, path: Path) -> int | str:
    """Return an id that an annotation names."""
    try:
        return parse_id(entry[name])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: annotations[{index}] has no usable {name} ({error!r}); annotations need "
            "image_id, category_id and a segmentation or bbox"
        ) from error


def _choose_image(
    images: dict[int | str, CocoImage],
    labelled: set[int | str],
    scene_files: Sequence[str],
    size: tuple[int, int],
    path: Path,
) -> CocoImage:
    """Return the image entry that stands for the scene."""
    stems = {Path(name).stem.casefold() for name in scene_files}
    named = [i for i in images.values() if Path(i.file_name).stem.casefold() in stems]
    candidates = named or [i for i in images.values() if (i.height, i.width) == size]

    # Of several that fit, those without any object are left-overs of the label tool.
    if len(candidates) > 1:
        candidates = [image for image in candidates if image.number in labelled]
    if len(candidates) != 1:
        listed = ", ".join(f"{i.file_name} ({i.width} x {i.height})" for i in images.values())
        raise ValueError(
            f"{path}: no single image entry is the scene {Path(scene_files[0]).name} of "
            f"{size[1]} x {size[0]} pixels; its images are {listed[:300] or 'none'}"
        )

    image = candidates[0]
    if (image.height, image.width) != size:
        raise ValueError(
            f"{path}: image {image.file_name} has {image.width} x {image.height} pixels, but the "
            f"scene {size[1]} x {size[0]}; its labels belong to a resampled or another scene"
        )

    # Users who draw in a copy of an entry would else train on a scene without objects.
    others = [images[number].file_name for number in labelled - {image.number}]
    if image.number not in labelled and len(others) == 1:
        _logger.warning(
            "%s has no object in %s, the scene by its name, but in %s; if that is the same scene, "
            "delete the empty entry",
            path,
            image.file_name,
            others[0],
        )
    return image


def _points(entry: dict[str, Any], index: int, size: tuple[int, int], path: Path) -> np.ndarray:
    """Return the corners (k, 2) of an object in pixels; for a mask, the corners of its pixels."""
    shape = entry.get("segmentation")
    try:
        if isinstance(shape, dict):
            return _mask_corners(shape, size)
        if shape:
            return np.concatenate([np.reshape(p, (-1, 2)) for p in shape]).astype(np.float64)
        x, y, width, height = (float(value) for value in entry["bbox"])
        return np.array([(x, y), (x + width, y), (x + width, y + height), (x, y + height)])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: annotations[{index}] has no usable shape ({error}); it needs a segmentation "
            "(polygons or RLE of the image's size) or a bbox of 4 numbers"
        ) from error


def _mask_corners(rle: dict[str, Any], size: tuple[int, int]) -> np.ndarray:
    """Return the corners (k, 2) of a mask's pixels; the runs of COCO's RLE go down the columns."""
    if tuple(rle["size"]) != size:
        raise ValueError(f"its mask is of {rle['size']}, the scene of {list(size)}")
    counts = rle["counts"]
    if isinstance(counts, str | bytes):
        from pycocotools import mask

        encoded = counts.encode() if isinstance(counts, str) else counts
        decoded = mask.decode({"size": list(size), "counts": encoded})
        places = np.flatnonzero(decoded.ravel(order="F"))
    else:
        ends = np.cumsum(np.asarray(counts, dtype=np.int64))
        if not len(ends) or ends[-1] != size[0] * size[1]:
            raise ValueError("the runs of its mask do not add up to the pixels of the scene")
        # Runs outside and inside the object alternate, beginning outside.
        runs = [np.arange(start, end) for start, end in zip(ends[::2], ends[1::2])]
        places = np.concatenate([np.zeros(0, dtype=np.int64), *runs])

    # Corners of the squares, not centres: an object of one pixel has an area, too.
    columns, rows = np.divmod(places, size[0])
    corners = [(columns + dx, rows + dy) for dx, dy in ((0, 0), (1, 0), (1, 1), (0, 1))]
    points = np.stack([np.stack(pair, axis=1) for pair in corners], axis=1)
    return points.reshape(-1, 2).astype(np.float64)
