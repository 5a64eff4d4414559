"""TinyPerson and generated scenes in its format.

TinyPerson (Yu et al., "Scale Match for Tiny Person Detection", WACV 2020) shows people at sea and
on the beach. The folders expected
are in ``README.md`` beside this file.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from .coco_boxes import register_box_tiles, register_coco_boxes

TINY_PERSON_CLASSES = ("person",)
SYNTHETIC_TINY_CLASSES = ("person", "boat")
PERSON_ALIASES = {"sea_person": "person", "earth_person": "person"}
"""The standard task does not tell people in the sea from people on land."""

WINDOW = (640, 512)
OVERLAPS = (30, 50, 100)
"""Overlaps of SSPNet's training, of TinyBenchmark, and of TOV's test; pixels."""


def register_tiny_person(name: str, root: str | Path, split: str, metadata: dict) -> None:
    """Register one split of TinyPerson: whole images, the corner file, and virtual windows.

    The names are ``<name>``, ``<name>_corner`` and ``<name>_640x512_<overlap>``. Dense images are
    left out, as in training and test of the benchmark. The training images are the erased ones.

    Args:
        name: name of the dataset of whole images.
        root: the folder ``tiny_set``.
        split: ``"train"`` or ``"test"``.
        metadata: additional entries of the metadata catalog; ``thing_classes`` is ``person``.

    Raises:
        ValueError: for another split.
    """
    if split not in ("train", "test"):
        raise ValueError(f"split must be 'train' or 'test', got {split!r}")
    root = Path(root)
    # Regions of uncertain people are painted over in the training images only.
    base = root / "erase_with_uncertain_dataset" if split == "train" else root
    annotations, images = base / "annotations", base / split
    whole = annotations / "task" / f"tiny_set_{split}_all.json"
    corner = annotations / "corner" / "task" / f"tiny_set_{split}_sw640_sh512_all.json"
    metadata = {"thing_classes": list(TINY_PERSON_CLASSES), **metadata}
    # Dense images are no part of the benchmark, neither in training nor in the test.

    register = partial(register_coco_boxes, aliases=PERSON_ALIASES, dense="drop")
    register(name, metadata, whole, images)
    register(f"{name}_corner", metadata, corner, images, source_dataset=name)
    for overlap in OVERLAPS:
        tiles = f"{name}_{WINDOW[0]}x{WINDOW[1]}_{overlap}"
        register_box_tiles(tiles, name, window=WINDOW, overlap=(overlap, overlap))


def register_synthetic_tiny(name: str, folder: str | Path, metadata: dict) -> None:
    """Register a folder that ``tools/make_synthetic.py --kind tiny`` drew.

    Args:
        name: name of the dataset.
        folder: folder that holds ``images`` and ``annotations.json``.
        metadata: additional entries of the metadata catalog; ``thing_classes`` are ``person`` and
            ``boat``. Dense images are left out.
    """
    folder = Path(folder)
    metadata = {"thing_classes": list(SYNTHETIC_TINY_CLASSES), **metadata}
    register_coco_boxes(
        name,
        metadata,
        folder / "annotations.json",
        folder / "images",
        aliases=PERSON_ALIASES,
        dense="drop",
    )
