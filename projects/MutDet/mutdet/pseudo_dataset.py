"""Pseudo-labels of a folder as the data set of a config, without registering a name."""

from __future__ import annotations

from pathlib import Path

from rsd2.data.datasets.pseudo import load_pseudo_labels


def get_pseudo_dicts(
    folder: str | Path, image_root: str | Path, classes: str = "clusters"
) -> list[dict]:
    """Dataset dicts of a run of pseudo-labels.

    Args:
        folder: of the shards.
        image_root: folder that the images' names are relative to.
        classes: "clusters" or "one".

    Returns:
        See `rsd2.data.datasets.pseudo.load_pseudo_labels`.
    """
    return load_pseudo_labels(folder, image_root, classes=classes)[0]
