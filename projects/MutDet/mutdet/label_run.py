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

import numpy as np
import torch
from tqdm import tqdm

from rsd2.data.file_names import list_files
from rsd2.data.formats.pseudo_labels import (
    PseudoLabelError,
    PseudoLabels,
    ShardHeader,
    make_run_id,
    read_header,
    read_shard,
    shard_name,
    write_shard,
)
from rsd2.io.files import make_output_folder
from rsd2.io.image_io import IMAGE_EXTENSIONS, read_image
from rsd2.io.worker_pool import run_in_processes

from .box_filters import BoxFilters
from .mask_boxes import masks_to_boxes
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
    """

    source: ProposalSource
    filters: BoxFilters = BoxFilters()
    official_boxes: bool = False

    def settings(self) -> dict:
        """Return whatever decides the labels of an image, as plain values."""
        settings = {**self.source.settings(), "filters": asdict(self.filters)}
        settings["official_boxes"] = self.official_boxes
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
        proposals, size = self.source(image), image.shape[:2]
        found = masks_to_boxes(proposals, size, official=self.official_boxes)
        chosen, removed = self.filters.select(found.boxes, found.scores, size)
        counts = Counter({"proposals": len(proposals), "without_area": found.degenerate})
        counts += removed + Counter(boxes=len(chosen), images_without_boxes=int(not len(chosen)))
        labels = PseudoLabels(
            file_name,
            *size,
            found.boxes[chosen],
            found.scores[chosen],
            areas=found.areas[chosen],
        )
        return labels, counts


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
        PseudoLabelError: if the output folder holds labels of other images or settings.
        ValueError: if a number is out of range.
    """
    index, num_shards = shard
    if not 0 <= index < num_shards or part_size < 1:
        raise ValueError(
            "a shard is (index, number) with 0 <= index < number, and part_size >= 1; got "
            f"{shard} and {part_size}"
        )
    names = list_images(image_root)
    settings = labeller.settings()
    run_id = make_run_id(settings, names)
    header = ShardHeader(run_id, len(names), index, num_shards, settings)
    output, mine = Path(output), names[index::num_shards]
    make_output_folder(output)
    _check_output(output, header)
    finished = output / shard_name(index, num_shards)
    folder = output / f".parts-{finished.stem}"
    if not finished.is_file():
        make_output_folder(folder)
        parts = [mine[start : start + part_size] for start in range(0, len(mine), part_size)]
        work = partial(
            _label_part,
            root=Path(image_root),
            folder=folder,
            labeller=labeller,
            header=header,
            skip_unreadable=skip_unreadable,
        )
        with tqdm(total=len(mine), desc="images", unit="image", disable=not progress) as bar:
            done = run_in_processes(work, list(enumerate(parts)), num_workers, _one_thread)
            for count in done:
                bar.update(count)
        _merge([_part_path(folder, k) for k in range(len(parts))], finished, header)
    shutil.rmtree(folder, ignore_errors=True)
    return finished


def _one_thread() -> None:
    torch.set_num_threads(1)


def _part_path(folder: Path, number: int) -> Path:
    return folder / f"part-{number:06d}.npz"


def _check_output(output: Path, header: ShardHeader) -> None:
    """Refuse a folder that another run has begun, saying what differs."""
    parts = (next(folder.glob("part-*.npz"), None) for folder in output.glob(".parts-*"))
    for path in [*output.glob("shard-*.npz"), *(part for part in parts if part is not None)]:
        found = read_header(path)
        if found.embedding is not None:
            raise PseudoLabelError(f"{path} has embeddings already; choose another output folder")
        if (found.run_id, found.num_shards) == (header.run_id, header.num_shards):
            continue
        different = [
            f"{key}: {found.settings.get(key)} there, {header.settings.get(key)} now"
            for key in sorted({*found.settings, *header.settings})
            if found.settings.get(key) != header.settings.get(key)
        ]
        for what in ("num_shards", "num_images"):
            there, now = getattr(found, what), getattr(header, what)
            if there != now:
                different.append(f"{what}: {there} there, {now} now")
        raise PseudoLabelError(
            f"{output} holds pseudo-labels of another run ({path.name}: "
            f"{', '.join(different) or 'other images'}); choose another output folder, or delete it"
        )


def _label_part(
    numbered: tuple[int, Sequence[str]],
    *,
    root: Path,
    folder: Path,
    labeller: Labeller,
    header: ShardHeader,
    skip_unreadable: bool,
) -> int:
    """Label the images of a part and save it, unless that is done; return how many they are."""
    number, names = numbered
    path = _part_path(folder, number)
    if _is_done(path, names):
        return len(names)
    records, skipped, counts = [], {}, Counter()
    for name in names:
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
    write_shard(path, records, replace(header, skipped=skipped, counts=dict(counts)))
    return len(names)


def _is_done(path: Path, names: Sequence[str]) -> bool:
    """Whether a part was saved whole, and for these very images."""
    if not path.is_file():
        return False
    try:
        records, header = read_shard(path)
    except PseudoLabelError:
        # Damaged from outside, for parts are written atomically: made again.
        return False
    return sorted([*(r.file_name for r in records), *header.skipped]) == sorted(names)


def _merge(parts: Sequence[Path], finished: Path, header: ShardHeader) -> None:
    """Write the shard from its parts."""
    records, skipped, counts = [], {}, Counter()
    for path in parts:
        found, part = read_shard(path)
        records += found
        skipped |= part.skipped
        counts += Counter(part.counts)
    write_shard(finished, records, replace(header, skipped=skipped, counts=dict(counts)))
