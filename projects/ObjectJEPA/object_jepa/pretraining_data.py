"""Images and boxes for pre-training, which must not be those of an evaluation.

Boxes guide the masks, so pre-training on the labels of a validation or test split would teach the
encoder the answers of its later evaluation.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from detectron2.data import DatasetCatalog, MetadataCatalog

from rsd2.data.splits import choose_share, get_dataset_dicts, unit_id

EVALUATION_WORDS = frozenset(
    ("val", "valid", "validation", "minival", "test", "testdev", "dev", "eval", "evaluation")
)


class EvaluationSplitError(ValueError):
    """Boxes of an evaluation split were requested; the message names the dataset."""


def refuse_evaluation_splits(names: Sequence[str]) -> None:
    """Refuse datasets whose names mark them as evaluation data.

    Pseudo-labels (``register_pseudo_labels``) are no ground truth and pass.

    Args:
        names: names of registered datasets.

    Raises:
        EvaluationSplitError: a part of a name, between "_", "-" or ".", is a word like "val" or
            "test"; "trainval" is allowed.
    """
    for name in names:
        words = EVALUATION_WORDS & set(re.split(r"[_\-.]", name.lower()))
        if words and MetadataCatalog.get(name).get("pseudo_labels", None) is None:
            raise EvaluationSplitError(
                f"the dataset {name} is for evaluation ({', '.join(sorted(words))}), so its boxes "
                "must not guide a pre-training; take the training split, or pseudo-labels of these "
                "images"
            )


def get_pretraining_dicts(
    names: str | Sequence[str],
    *,
    held_out: str | Sequence[str] = (),
    fraction: float = 1.0,
    labelled_fraction: float = 1.0,
    split_seed: int = 0,
    split_file: str | Path | None = None,
) -> list[dict]:
    """Read registered datasets to pre-train on; images without objects stay.

    Args:
        names: names of one or more registered datasets.
        held_out: datasets for later evaluation; none of their image files may be among the
            training images. Their files must exist.
        fraction: share of the images, see ``rsd2.data.splits.get_dataset_dicts``.
        labelled_fraction: share of the chosen images that keep their boxes, in (0, 1].
        split_seed: seed of both choices; smaller shares are parts of larger ones.
        split_file: list of the images to take, instead of a fraction.

    Returns:
        Dataset dicts.

    Raises:
        EvaluationSplitError: see `refuse_evaluation_splits`, or an image is in both; the message
            names it.
        ValueError: see ``get_dataset_dicts``; a fraction is out of range.
    """
    names = [names] if isinstance(names, str) else list(names)
    held_out = [held_out] if isinstance(held_out, str) else list(held_out)
    refuse_evaluation_splits(names)
    # An object is to be looked at, whatever it is: ships beside planes.
    records = get_dataset_dicts(
        names,
        fraction=fraction,
        split_seed=split_seed,
        split_file=split_file,
        same_classes=False,
    )

    for name in held_out:
        # Real paths, so that a link to an image of the evaluation is found too.
        files = {_identity(record) for record in DatasetCatalog.get(name)}
        shared = [record["file_name"] for record in records if _identity(record) in files]
        if shared:
            raise EvaluationSplitError(
                f"{len(shared)} of {len(records)} images of {', '.join(names)} are in {name} too, "
                f"which serves evaluation, for example {shared[0]}; leave them out"
            )

    # The others stay as images: background and unlabelled objects still teach the encoder.
    labelled = set(choose_share(map(unit_id, records), labelled_fraction, split_seed))
    return [
        record if unit_id(record) in labelled else {**record, "annotations": []}
        for record in records
    ]


def _identity(record: dict) -> str:
    return os.path.realpath(record["file_name"])
