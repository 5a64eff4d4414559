"""Pseudo-labels as Detectron2 datasets: every object with its embedding, classes from clusters."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode

from rsd2.data.formats.pseudo_labels import PseudoLabelError, PseudoLabels, ShardHeader, read_folder

CLASS_CHOICES = ("clusters", "one")


def load_pseudo_labels(
    folder: str | Path, image_root: str | Path, *, classes: str = "clusters"
) -> tuple[list[dict], tuple[str, ...]]:
    """Read the pseudo-labels of a run into Detectron2's dataset dicts.

    Args:
        folder: folder of the shards, see ``rsd2.data.formats.pseudo_labels``.
        image_root: folder to which the names of the images are relative.
        classes: ``"clusters"`` makes each cluster a class, ``"one"`` all objects one class.

    Returns:
        (dicts with ``file_name``, ``height``, ``width``, ``image_id`` (the name relative to the
        root, without extension) and ``annotations``: ``bbox`` in ``XYWHA_ABS``, ``category_id``,
        ``score``, and ``embedding`` (D,) float32 if the run has embeddings; the names of the
        classes). Images without boxes have an empty list of annotations.

    Raises:
        PseudoLabelError: as ``read_folder``, or if clusters are asked for and the run has none.
        ValueError: for another choice of classes.
    """
    _check_choice(classes)
    records, header = read_folder(folder)
    names = _class_names(header, classes, folder)
    root = Path(image_root)
    dicts = [
        {
            "file_name": str(root / record.file_name),
            "height": record.height,
            "width": record.width,
            "image_id": str(Path(record.file_name).with_suffix("").as_posix()),
            "annotations": _annotations(record, classes),
        }
        for record in records
    ]
    return dicts, names


def get_pseudo_dicts(
    folder: str | Path, image_root: str | Path, classes: str = "clusters"
) -> list[dict]:
    """Read the pseudo-labels of a run as the dataset of a config, without registering a name.

    Args:
        folder: folder of the shards.
        image_root: folder to which the names of the images are relative.
        classes: ``"clusters"`` or ``"one"``.

    Returns:
        dataset dicts, see `load_pseudo_labels`.

    Raises:
        PseudoLabelError: see `load_pseudo_labels`.
        ValueError: for another choice of classes.
    """
    return load_pseudo_labels(folder, image_root, classes=classes)[0]


def register_pseudo_labels(
    name: str, folder: str | Path, image_root: str | Path, classes: str = "clusters"
) -> None:
    """Register a run of pseudo-labels; nothing is read before ``DatasetCatalog.get(name)``.

    ``MetadataCatalog.get(name).thing_classes`` is only known after that, too, because the files
    state the number of clusters.

    Args:
        name: name of the dataset; a name can be registered once per process.
        folder: folder as for `load_pseudo_labels`.
        image_root: folder of the images as for `load_pseudo_labels`.
        classes: classes as for `load_pseudo_labels`.

    Raises:
        ValueError: for another choice of classes.
    """
    _check_choice(classes)
    DatasetCatalog.register(name, partial(_load_registered, name, folder, image_root, classes))
    MetadataCatalog.get(name).set(evaluator_type="none", pseudo_labels=str(folder))


def _load_registered(
    name: str, folder: str | Path, image_root: str | Path, classes: str
) -> list[dict]:
    dicts, names = load_pseudo_labels(folder, image_root, classes=classes)
    # Only the files know how many clusters there are.
    MetadataCatalog.get(name).thing_classes = list(names)
    return dicts


def _check_choice(classes: str) -> None:
    if classes not in CLASS_CHOICES:
        raise ValueError(f"classes must be one of {CLASS_CHOICES}, got {classes!r}")


def _class_names(header: ShardHeader, classes: str, folder: str | Path) -> tuple[str, ...]:
    if classes == "one":
        return ("object",)
    if header.embedding is None:
        raise PseudoLabelError(
            f"the run in {folder} has boxes only; projects/MutDet/tools/extract_embeddings.py adds "
            "embeddings and clusters, or register it with classes='one'"
        )

    return tuple(f"cluster_{index}" for index in range(header.embedding.num_clusters))


def _annotations(record: PseudoLabels, classes: str) -> list[dict]:
    annotations = [
        {
            "bbox": box,
            "bbox_mode": BoxMode.XYWHA_ABS,
            "category_id": 0,
            "score": score,
        }
        for box, score in zip(record.boxes.tolist(), record.scores.tolist())
    ]
    if classes == "clusters":
        if record.clusters is None:
            raise PseudoLabelError(f"{record.file_name} has no clusters; use classes='one'")
        for annotation, cluster in zip(annotations, record.clusters.tolist()):
            annotation["category_id"] = cluster
    if record.embeddings is not None:
        for annotation, embedding in zip(annotations, record.embeddings):
            annotation["embedding"] = embedding
    return annotations
