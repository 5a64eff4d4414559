"""Pseudo-labels under Detectron2's catalogs: classes, embeddings beside their boxes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode

from rsd2.data.datasets.pseudo import load_pseudo_labels, register_pseudo_labels
from rsd2.data.formats.pseudo_labels import (
    EmbeddingHeader,
    PseudoLabelError,
    PseudoLabels,
    ShardHeader,
    shard_name,
    write_shard,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two images: one with two objects, one with none."""
    boxes = np.array([[10, 20, 8, 4, 30], [30, 30, 6, 6, 0]], dtype=np.float32)
    record = PseudoLabels(
        "one/a.b.png",
        40,
        50,
        boxes,
        np.array([0.5, 0.25], np.float32),
        embeddings=np.array([[1, 0], [0, 1]], np.float32),
        clusters=np.array([4, 1]),
    )
    values = ("boxes", "scores", "embeddings", "clusters")
    empty = replace(record, file_name="z.png", **{v: getattr(record, v)[:0] for v in values})
    header = ShardHeader("b" * 16, 2, embedding=EmbeddingHeader("e", "b", "r", 2, 5))
    write_shard(tmp_path / shard_name(0, 1), [record, empty], header)
    return tmp_path


@pytest.fixture
def registered(folder: Path) -> Iterator[str]:
    register_pseudo_labels("pseudo_test", folder, "images")
    yield "pseudo_test"
    DatasetCatalog.remove("pseudo_test")
    MetadataCatalog.remove("pseudo_test")


def test_dicts_are_detectron2s_and_hold_the_embeddings(registered: str) -> None:
    first, second = DatasetCatalog.get(registered)
    assert first["file_name"] == str(Path("images") / "one/a.b.png")
    assert (first["height"], first["width"], first["image_id"]) == (40, 50, "one/a.b")
    one, two = first["annotations"]
    assert one["bbox"] == [10, 20, 8, 4, 30] and one["bbox_mode"] == BoxMode.XYWHA_ABS
    assert (one["category_id"], one["score"], two["category_id"], two["score"]) == (4, 0.5, 1, 0.25)
    np.testing.assert_array_equal(two["embedding"], np.array([0, 1], np.float32))
    assert second["annotations"] == []
    names = MetadataCatalog.get(registered).thing_classes
    assert len(names) == 5 and names[4] == "cluster_4"


def test_one_class_needs_no_embeddings(folder: Path) -> None:
    dicts, names = load_pseudo_labels(folder, "images", classes="one")
    assert names == ("object",)
    assert {a["category_id"] for d in dicts for a in d["annotations"]} == {0}
    record = PseudoLabels("z", 9, 9, np.ones((1, 5), np.float32), np.ones(1, np.float32))
    write_shard(folder / shard_name(0, 1), [record], ShardHeader("b" * 16, 1))
    dicts, _ = load_pseudo_labels(folder, "images", classes="one")
    assert "embedding" not in dicts[0]["annotations"][0]
    with pytest.raises(PseudoLabelError, match="boxes only.*extract_embeddings.py"):
        load_pseudo_labels(folder, "images")


def test_nothing_is_read_at_registration_but_typing_errors_are_found(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="classes must be one of"):
        register_pseudo_labels("pseudo_typo", tmp_path, "images", classes="cluster")
    register_pseudo_labels("pseudo_absent", tmp_path / "absent", "images")
    try:
        with pytest.raises(PseudoLabelError, match="absent"):
            DatasetCatalog.get("pseudo_absent")
    finally:
        DatasetCatalog.remove("pseudo_absent")
        MetadataCatalog.remove("pseudo_absent")
