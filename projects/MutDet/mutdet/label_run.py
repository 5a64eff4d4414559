"""A run of pseudo-labelling: a folder of images in, shards of rotated boxes out, whatever happens.

The images of a shard are labelled in parts, and each part is saved when it is done, under
``.parts-<shard>``. A run that is killed and started again keeps the parts, and its shards have the
same bytes as those of a run that was not killed. The shard is written when all parts are there;
then the parts are removed.

Shapes: H, W height and width of an image.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from rsd2.data.file_names import list_files
from rsd2.data.formats.pseudo_labels import (
    PseudoLabelError,
    PseudoLabels,
    ShardHeader,
    read_header,
    read_shard,
    shard_name,
    write_shard,
)
from rsd2.data.windows.tiling import crop_window
from rsd2.inference.seams import best_seen
from rsd2.inference.sliding_window import WindowParameters, place_windows
from rsd2.io.files import make_output_folder
from rsd2.io.folder_run import FolderRun, check_shard, make_run_id, refuse_other_parameters
from rsd2.io.image_io import IMAGE_EXTENSIONS, read_image

from .box_filters import BoxFilters
from .mask_boxes import MaskBoxes, masks_to_boxes
from .proposals import ProposalSource


class UnreadableImageError(ValueError):
    """An image cannot be read, and the run is not allowed to go on without it."""


@dataclass(frozen=True)
class Labeller:
    """Makes the pseudo-labels of one image.

    Attributes:
        source: of the proposals.
        filters: of the boxes.
        official_boxes: enclose masks as ``masks_to_boxes(official=True)`` does.
        windows: how larger images are cut into windows, and what becomes of the pieces of objects
            at their seams; None proposes on whole images. Duplicates are the filters' business.
    """

    source: ProposalSource
    filters: BoxFilters = BoxFilters()
    official_boxes: bool = False
    windows: WindowParameters | None = None

    def __post_init__(self) -> None:
        """Validate the rule for seams: a box that is joined from pieces would have no mask."""
        if self.windows is not None and self.windows.seams == "join":
            raise ValueError("proposals at seams can be dropped or kept, not joined")

    def settings(self) -> dict:
        """Return whatever decides the labels of an image, as plain values."""
        settings = {**self.source.settings(), "filters": asdict(self.filters)}
        settings["official_boxes"] = self.official_boxes
        # Runs without windows keep the name that they had before there were any.
        if self.windows is not None:
            names = ("window", "overlap", "padding", "seams")
            settings["windows"] = {name: getattr(self.windows, name) for name in names}
        return json.loads(json.dumps(settings))  # as it will be read: JSON knows no tuples

    def __call__(self, image: np.ndarray, file_name: str) -> tuple[PseudoLabels, Counter[str]]:
        """Label an image.

        Args:
            image: (H, W, 3) uint8 RGB.
            file_name: for the result.

        Returns:
            (the boxes, best score first; numbers: of proposals, of those without area, of boxes
            that each filter removed, of boxes left, of images without any box).
        """
        size = (image.shape[0], image.shape[1])
        found, counts = self._propose(image)
        chosen, removed = self.filters.select(found.boxes, found.scores, size)
        counts += removed + Counter(boxes=len(chosen), images_without_boxes=int(not len(chosen)))
        labels = PseudoLabels(
            file_name,
            *size,
            found.boxes[chosen],
            found.scores[chosen],
            areas=found.areas[chosen],
        )
        return labels, counts

    def _propose(self, image: np.ndarray) -> tuple[MaskBoxes, Counter[str]]:
        """Boxes of the proposals of all windows, and what happened on the way."""
        height, width = image.shape[:2]
        windows = np.array([[0, 0, width, height]])
        if self.windows is not None:
            windows = place_windows(height, width, self.windows)

        counts: Counter[str] = Counter()
        parts = []
        for window in windows:
            x0, y0 = int(window[0]), int(window[1])
            shown = crop_window(image, window) if len(windows) > 1 else image
            proposals = [one._replace(x=one.x + x0, y=one.y + y0) for one in self.source(shown)]
            parts.append(masks_to_boxes(proposals, (height, width), official=self.official_boxes))
            counts += Counter(proposals=len(proposals), without_area=parts[-1].degenerate)

        found = MaskBoxes(*map(np.concatenate, list(zip(*parts))[:3]), counts["without_area"])
        if self.windows is None or self.windows.seams == "keep":
            return found, counts
        numbers = [len(part.boxes) for part in parts]
        whole = best_seen(
            found.boxes.astype(np.float64), np.repeat(windows, numbers, axis=0), (height, width)
        )
        counts += Counter(pieces_at_seams=int((~whole).sum()))
        return found._replace(
            boxes=found.boxes[whole], scores=found.scores[whole], areas=found.areas[whole]
        ), counts


def list_images(image_root: str | Path) -> list[str]:
    """List the images of a folder and its sub-folders, linked ones included.

    Args:
        image_root: the folder; hidden files and folders are not looked at.

    Returns:
        names relative to the folder, with ``/``, sorted.

    Raises:
        FileNotFoundError: if the folder is not there or holds no image.
    """
    root = Path(image_root)
    if not root.is_dir():
        raise FileNotFoundError(f"there is no image folder {root.absolute()}; check the path")
    found = sorted(
        name
        for name in list_files(root)
        if Path(name).suffix.lower() in IMAGE_EXTENSIONS
        and not any(part.startswith(".") for part in name.split("/"))
        and (root / name).is_file()
    )
    if not found:
        raise FileNotFoundError(
            f"the image folder {root} holds no file ending in {', '.join(IMAGE_EXTENSIONS)}"
        )
    return found


def label_folder(
    image_root: str | Path,
    output: str | Path,
    labeller: Labeller,
    *,
    skip_unreadable: bool = False,
    shard: tuple[int, int] = (0, 1),
    num_workers: int = 0,
    part_size: int = 16,
    progress: bool = True,
) -> Path:
    """Label the images of a shard, or finish what was begun.

    Args:
        image_root: folder of images, sub-folders included.
        output: folder of the shards, made if missing; all shards of a run share it.
        labeller: makes the labels.
        skip_unreadable: count images that cannot be read and go on; they are listed in the shard.
        shard: (index, number of shards): this call labels each number-th image.
        num_workers: processes; 0 for none besides this one. The result does not depend on it.
        part_size: images between two savings, >= 1. The result does not depend on it.
        progress: show a bar.

    Returns:
        path of the finished shard.

    Raises:
        FileNotFoundError: if there are no images.
        UnreadableImageError: if an image cannot be read; what is done is kept.
        FolderTakenError: if the output folder holds labels of other images or settings.
        PseudoLabelError: if it holds embeddings or a damaged shard.
        ValueError: if a number is out of range.
    """
    check_shard(shard)
    if part_size < 1:
        raise ValueError(f"part_size must be >= 1, got {part_size}")
    (index, num_shards), names = shard, list_images(image_root)
    settings = labeller.settings()
    header = ShardHeader(make_run_id(settings, names), len(names), index, num_shards, settings)
    output, mine = Path(output), names[index::num_shards]
    make_output_folder(output)
    _check_output(output, header)

    finished = output / shard_name(index, num_shards)
    folder = output / f".parts-{finished.stem}"
    if not finished.is_file():
        make_output_folder(folder)
        parts = [
            _Part(folder / f"part-{number:06d}.npz", mine[start : start + part_size])
            for number, start in enumerate(range(0, len(mine), part_size))
        ]
        FolderRun(parts, _is_done).make(
            partial(
                _label_part,
                root=Path(image_root),
                labeller=labeller,
                header=header,
                skip_unreadable=skip_unreadable,
            ),
            title="images",
            unit="image",
            size=lambda part: len(part.names),
            num_workers=num_workers,
            start_worker=_one_thread,
            progress=progress,
        )
        _merge(parts, finished, header)
    shutil.rmtree(folder, ignore_errors=True)
    return finished


class _Part(NamedTuple):
    """Images of a shard whose labels are in one file."""

    path: Path
    names: Sequence[str]


def _one_thread() -> None:
    torch.set_num_threads(1)


def _identity(header: ShardHeader) -> dict[str, Any]:
    """Whatever tells runs apart, by names that a user knows."""
    return {
        **header.settings,
        "num_shards": header.num_shards,
        "num_images": header.num_images,
        "hash of settings and images": header.run_id,
    }


def _check_output(output: Path, header: ShardHeader) -> None:
    """Refuse a folder that another run has begun, saying what differs."""
    parts = (next(folder.glob("part-*.npz"), None) for folder in output.glob(".parts-*"))
    for path in [*output.glob("shard-*.npz"), *(part for part in parts if part is not None)]:
        found = read_header(path)
        if found.embedding is not None:
            raise PseudoLabelError(f"{path} has embeddings already; choose another output folder")
        refuse_other_parameters(output, "pseudo-labels", _identity(found), _identity(header))


def _label_part(
    part: _Part, *, root: Path, labeller: Labeller, header: ShardHeader, skip_unreadable: bool
) -> None:
    """Label the images of a part and save it."""
    records, skipped, counts = [], {}, Counter()
    for name in part.names:
        try:
            image = read_image(root / name)
        except (OSError, ValueError) as error:
            if not skip_unreadable:
                raise UnreadableImageError(
                    f"{error} Or run again with --unreadable skip to leave such images out; what "
                    "is done is kept."
                ) from error
            skipped[name] = str(error)
            continue

        labels, numbers = labeller(image, name)
        records.append(labels)
        counts += numbers
    write_shard(part.path, records, replace(header, skipped=skipped, counts=dict(counts)))


def _is_done(part: _Part) -> bool:
    """Whether a part was saved whole, and for these very images."""
    try:
        records, header = read_shard(part.path)
    except PseudoLabelError:
        # Not there, or damaged from outside, for parts are written atomically: made again.
        return False
    return sorted([*(r.file_name for r in records), *header.skipped]) == sorted(part.names)


def _merge(parts: Sequence[_Part], finished: Path, header: ShardHeader) -> None:
    """Write the shard from its parts."""
    records, skipped, counts = [], {}, Counter()
    for part in parts:
        found, about = read_shard(part.path)
        records += found
        skipped |= about.skipped
        counts += Counter(about.counts)
    write_shard(finished, records, replace(header, skipped=skipped, counts=dict(counts)))
