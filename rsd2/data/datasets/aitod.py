"""AI-TOD and AI-TOD-v2: tiny objects in aerial images of 800 x 800 pixels.

AI-TOD (Wang et al., "Tiny Object Detection in Aerial Images", ICPR 2020; v2 with better labels:
Xu et al., ISPRS 2022) is COCO's format. The folders expected are in ``README.md`` beside this file.
"""

from __future__ import annotations

from pathlib import Path

from .coco_boxes import register_coco_boxes

AITOD_CLASSES = (
    "airplane",
    "bridge",
    "storage-tank",
    "ship",
    "swimming-pool",
    "vehicle",
    "person",
    "wind-mill",
)
AITOD_SPLITS = ("train", "val", "trainval", "test")
AITOD_VERSIONS = ("aitod", "aitodv2")


def register_aitod(name: str, root: str | Path, version: str, split: str, metadata: dict) -> None:
    """Register one split of AI-TOD.

    Args:
        name: name of the dataset.
        root: the folder ``aitod``.
        version: ``"aitod"`` or ``"aitodv2"``, whose images are the same.
        split: ``"train"``, ``"val"``, ``"trainval"`` or ``"test"``; the first three share the
            folder ``images/trainval``.
        metadata: additional entries of the metadata catalog; ``thing_classes`` are the 8 classes.

    Raises:
        ValueError: for another version or split.
    """
    if version not in AITOD_VERSIONS or split not in AITOD_SPLITS:
        raise ValueError(
            f"version must be one of {AITOD_VERSIONS} and split one of {AITOD_SPLITS}, got "
            f"{version!r} and {split!r}"
        )

    root = Path(root)
    images = root / "images" / ("test" if split == "test" else "trainval")
    metadata = {"thing_classes": list(AITOD_CLASSES), **metadata}
    register_coco_boxes(name, metadata, root / "annotations" / f"{version}_{split}.json", images)
