"""A share of the labels: which images a low-data experiment may see, the same on every machine.

Images are ordered by a hash of the seed and their id, and a share is the beginning of that order.
So a choice is the same everywhere without a random generator or a list, and a smaller share is part
of a larger one. For tiles, whole source images are chosen, because tiles overlap and the cost of
labelling counts by image.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.build import (
    filter_images_with_only_crowd_annotations,
    print_instances_class_histogram,
)
from detectron2.data.detection_utils import check_metadata_consistency

from rsd2.data.dataset_dicts import check_record
from rsd2.data.file_names import NameIndex
from rsd2.io.files import write_atomically
from rsd2.io.text import read_lines

_logger = logging.getLogger(__name__)
_HEADER = "# sha256 of the sorted ids: "


def unit_id(record: dict) -> str:
    """Return the id of the image that a dataset dict shows, or of the image its tile was cut from.

    Args:
        record: a dataset dict with ``image_id``, or with ``tile``.

    Returns:
        the id by which shares are chosen.

    Raises:
        ValueError: if the dict has neither.
    """
    tile = record.get("tile")
    if not tile:
        check_record(record, "image_id")
    return str(tile["source_id"] if tile else record["image_id"])


def choose_share(ids: Iterable[str], fraction: float, seed: int = 0) -> list[str]:
    """Choose a share of ids; a smaller fraction of the same seed chooses a part of them.

    Args:
        ids: ids in any order, repetitions count once.
        fraction: share in (0, 1], rounded up to whole ids.
        seed: seed of the choice.

    Returns:
        the chosen ids, sorted.

    Raises:
        ValueError: if the fraction is out of range.
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"a share is a fraction in (0, 1], got {fraction}")
    # Repeated ids are tiles of one image, which count once.
    distinct = set(ids)
    order = sorted(distinct, key=lambda one: (_digest(f"{seed}:{one}"), one))

    # A little less, so that 0.1 of 30 is 3 although the product in floating point is a little more.
    return sorted(order[: math.ceil(fraction * len(distinct) - 1e-9)])


def digest_of(ids: Iterable[str]) -> str:
    """Fingerprint of a set of ids.

    Args:
        ids: ids in any order.

    Returns:
        SHA-256 in hexadecimal digits of the sorted ids, each followed by a line feed.
    """
    return _digest("".join(f"{one}\n" for one in sorted(set(ids))))


def write_split(path: str | Path, ids: Sequence[str], notes: Sequence[str] = ()) -> str:
    """Write a list of ids, complete or not at all.

    Args:
        path: path of the text file: comments, the hash, and an id on each line.
        ids: ids of the chosen images.
        notes: comment lines, for example the dataset, the share and the seed.

    Returns:
        the hash, see `digest_of`.
    """
    digest = digest_of(ids)
    lines = [*(f"# {note}" for note in notes), f"{_HEADER}{digest}", *sorted(set(ids))]
    write_atomically(path, ("\n".join(lines) + "\n").encode())
    return digest


def read_split(path: str | Path) -> list[str]:
    """Read a list of ids: one on each line, lines that begin with # are comments.

    Args:
        path: path of the text file.

    Returns:
        the ids, sorted.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it has no id, or if its ids differ from the hash in its comments.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no list of images {path}; tools/make_split.py makes one")
    lines = [line.strip() for line in read_lines(path)]
    ids = sorted({line for line in lines if line and not line.startswith("#")})
    if not ids:
        raise ValueError(f"the list {path} names no image")
    # Lists from elsewhere have no hash, so only a wrong one is an error.
    stated = [line.removeprefix(_HEADER) for line in lines if line.startswith(_HEADER)]
    if stated and stated[0] != digest_of(ids):
        raise ValueError(
            f"the {len(ids)} ids of {path} have another hash than its comments say: it was cut or "
            "edited. Make it again, or take the line with the hash out"
        )

    return ids


def select_images(records: Sequence[dict], ids: Iterable[str], name: str) -> list[dict]:
    """Select the dataset dicts of chosen images.

    Args:
        records: dataset dicts.
        ids: ids as `unit_id` gives them, or another spelling of the same path, with or without the
            extension of an image: ``./P0001.png`` is ``P0001``.
        name: name of the list, for messages.

    Returns:
        those dicts, in their order.

    Raises:
        ValueError: if the dataset lacks an id of the list, probably a list of another dataset.
    """
    # Another spelling of a path may name the same image, so ids are looked up, not compared.
    wanted = set(ids)
    index = NameIndex(map(unit_id, records), with_extension=False)
    chosen = {one: index.find(one) for one in wanted}
    absent = sorted(one for one, found in chosen.items() if found is None)
    if absent:
        raise ValueError(
            f"{len(absent)} of the {len(wanted)} images of {name} are not in the dataset, for "
            f"example {absent[0]!r}; is it the list of another one?"
        )

    names = set(chosen.values())
    return [record for record in records if unit_id(record) in names]


def get_dataset_dicts(
    names: str | Sequence[str],
    *,
    filter_empty: bool = False,
    fraction: float = 1.0,
    split_seed: int = 0,
    split_file: str | Path | None = None,
    same_classes: bool = True,
) -> list[dict]:
    """Read registered datasets for training, like Detectron2's function, or a share of them.

    Args:
        names: names of one or more registered datasets.
        filter_empty: leave out images without objects, after the share was taken.
        fraction: share of the images, in (0, 1]; see `choose_share`.
        split_seed: seed of that choice.
        split_file: list of the images to take, instead of a fraction.
        same_classes: whether the datasets must have the same classes, because a model learns them.

    Returns:
        dataset dicts; number, share and hash are logged.

    Raises:
        ValueError: if nothing is left, if both a fraction and a list are given, or if the list
            belongs to another dataset.
        FileNotFoundError: if there is no such list.
    """
    if split_file is not None and fraction != 1:
        raise ValueError(f"give fraction={fraction} or split_file={split_file}, not both")
    names = [names] if isinstance(names, str) else list(names)
    if not names:
        raise ValueError("no dataset is named")
    records = list(itertools.chain.from_iterable(DatasetCatalog.get(name) for name in names))
    # The share comes before the filter: an image without objects was paid for all the same.
    if split_file is not None or fraction != 1:
        total, ids = len(records), split_file and read_split(split_file)
        ids = ids or choose_share(map(unit_id, records), fraction, split_seed)
        source = split_file or f"fraction {fraction:g}, seed {split_seed}"
        records = select_images(records, ids, str(source))
        _logger.info(
            "%d of %d dicts of %s (%s): %d images, sha256 of their ids %s",
            *(len(records), total, ", ".join(names), source, len(ids), digest_of(ids)),
        )

    # Records without annotations are unlabelled; the filter would drop every one of them.
    labelled = bool(records) and "annotations" in records[0]
    if filter_empty and labelled:
        records = filter_images_with_only_crowd_annotations(records)
    if not records:
        raise ValueError(f"no image of {', '.join(names)} is left to train on")
    if labelled and same_classes:
        check_metadata_consistency("thing_classes", names)
        print_instances_class_histogram(records, MetadataCatalog.get(names[0]).thing_classes)
    return records


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
