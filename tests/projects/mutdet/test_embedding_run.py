"""Runs of embedding: boxes stay with their embeddings, killed runs continue, others are refused.

Shapes: N boxes, F features.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from rsd2.data.datasets.pseudo import load_pseudo_labels
from rsd2.data.formats.pseudo_labels import (
    PseudoLabelError,
    PseudoLabels,
    ShardHeader,
    read_folder,
    shard_name,
    write_shard,
)
from rsd2.io.folder_run import FolderTakenError
from rsd2.projects.mutdet import embedding_run
from rsd2.projects.mutdet.embedding_run import EmbeddingRun, FitSettings, embed_folder
from rsd2.projects.mutdet.reduction import load_reduction

FIT = FitSettings(dim=3, num_clusters=4)


class ByBox:
    """Features that tell which image and box they are of, so that any mix-up shows."""

    def __init__(self, name: str = "by box") -> None:
        self.name, self.calls, self.fail_at = name, 0, -1

    def settings(self) -> dict[str, Any]:
        return {"backbone": self.name, "crops": {"size": 1}}

    def __call__(self, image: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        self.calls += 1
        if self.calls == self.fail_at:
            raise KeyboardInterrupt
        level = np.full((len(boxes), 1), float(image[0, 0, 0]))
        x, y, w, _, angle = boxes.T[..., None]
        return np.hstack([level, x, y + level, w * angle, np.sin(x)]).astype(np.float32)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding_run, "_PART_SIZE", 2)


def write_boxes(folder: Path, num_shards: int, images: Path, run_id: str = "b" * 16) -> None:
    """Nine images with 0 to 8 boxes."""
    folder.mkdir()
    images.mkdir(exist_ok=True)
    records = []
    for k in range(9):
        rng = np.random.default_rng(k)
        boxes = rng.uniform(1, 30, (k, 5)).astype(np.float32)
        cv2.imwrite(str(images / f"i{k}.png"), np.full((20, 30, 3), 10 * k, np.uint8))
        records.append(PseudoLabels(f"i{k}.png", 20, 30, boxes, np.ones(k, np.float32)))
    for index in range(num_shards):
        header = ShardHeader(run_id, 9, index, num_shards)
        write_shard(folder / shard_name(index, num_shards), records[index::num_shards], header)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Boxes in two shards, and images."""
    write_boxes(tmp_path / "boxes", 2, tmp_path / "images")
    return tmp_path / "boxes", tmp_path / "images"


def embed(folders: tuple[Path, Path], output: Path, extractor: ByBox, **options: Any) -> bool:
    run = EmbeddingRun(folders[0], folders[1], output, extractor)
    return embed_folder(run, options.pop("fit", FIT), report=lambda text: None, **options)


def digests(folder: Path) -> list[str]:
    paths = sorted(folder.glob("*.npz"))
    return [path.name + hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]


def test_each_box_keeps_its_own_embedding(folders: tuple[Path, Path], tmp_path: Path) -> None:
    assert embed(folders, tmp_path / "out", ByBox())
    records, header = read_folder(tmp_path / "out")
    assert sum(len(r.boxes) for r in records) == 36 and header.embedding.num_clusters == 4
    assert header.embedding.boxes_run_id == header.run_id == "b" * 16
    reduction = load_reduction(tmp_path / "out" / "reduction.npz")
    assert header.embedding.reduction_id == reduction.id
    for record in records:
        image = cv2.imread(str(folders[1] / record.file_name))
        expected, clusters = reduction.apply(ByBox()(image, record.boxes))
        np.testing.assert_allclose(record.embeddings, expected.reshape(-1, 3), atol=1e-5)
        np.testing.assert_array_equal(record.clusters, clusters)
    dicts, names = load_pseudo_labels(tmp_path / "out", folders[1])
    assert len(names) == 4 and len(dicts[8]["annotations"]) == 8
    assert not (tmp_path / "out" / ".features").exists()


def test_damaged_features_are_computed_again(folders: tuple[Path, Path], tmp_path: Path) -> None:
    embed(folders, tmp_path / "whole", ByBox())
    assert not embed(folders, tmp_path / "out", ByBox(), shard=(0, 2))
    damaged = next((tmp_path / "out" / ".features").glob("*.npz"))
    damaged.write_bytes(damaged.read_bytes()[:50])
    assert embed(folders, tmp_path / "out", ByBox(), shard=(1, 2))
    assert digests(tmp_path / "out") == digests(tmp_path / "whole")
    again = ByBox()
    assert embed(folders, tmp_path / "out", again) and again.calls == 0


def test_the_number_of_box_shards_does_not_change_embeddings(tmp_path: Path) -> None:
    results = []
    for count in (1, 3):
        boxes, images = tmp_path / f"boxes{count}", tmp_path / "images"
        write_boxes(boxes, count, images)
        embed((boxes, images), tmp_path / f"out{count}", ByBox(), fit=FitSettings(3, 4))
        results.append(read_folder(tmp_path / f"out{count}")[0])
    for one, two in zip(*results):
        assert one.file_name == two.file_name
        # PCA saw them in another order; a component's sign is anyone's choice
        np.testing.assert_allclose(
            np.abs(one.embeddings @ one.embeddings.T),
            np.abs(two.embeddings @ two.embeddings.T),
            atol=1e-2,
        )


def test_a_given_reduction_is_used(folders: tuple[Path, Path], tmp_path: Path) -> None:
    embed(folders, tmp_path / "first", ByBox())
    file = tmp_path / "first" / "reduction.npz"
    write_boxes(tmp_path / "others", 1, folders[1], run_id="c" * 16)
    others = (tmp_path / "others", folders[1])
    embed(others, tmp_path / "out", ByBox(), given=file, fit=FitSettings(2, 2))
    header = read_folder(tmp_path / "out")[1]
    assert header.embedding.reduction_id == load_reduction(file).id
    assert header.embedding.dim == 3 and header.embedding.boxes_run_id == "c" * 16
    with pytest.raises(PseudoLabelError, match="was fitted on features of .*by box"):
        embed(others, tmp_path / "third", ByBox("another"), given=file)


def test_other_runs_are_refused(folders: tuple[Path, Path], tmp_path: Path) -> None:
    out, images = tmp_path / "out", folders[1]
    unfinished = ByBox()
    unfinished.fail_at = 3
    with pytest.raises(KeyboardInterrupt):
        embed(folders, out, unfinished)
    write_boxes(tmp_path / "others", 2, images, run_id="c" * 16)
    for state in ("unfinished", "finished"):
        with pytest.raises(FolderTakenError, match="holds features of .*b{16}.*c{16}.*delete"):
            embed((tmp_path / "others", images), out, ByBox())
        with pytest.raises(FolderTakenError, match="holds features of .*by box.*another"):
            embed(folders, out, ByBox("another"))
        if state == "unfinished":
            assert embed(folders, out, ByBox())
    with pytest.raises(PseudoLabelError, match="was fitted with .*'num_clusters': 4"):
        embed(folders, out, ByBox(), fit=FitSettings(3, 5))
    with pytest.raises(PseudoLabelError, match="has embeddings already"):
        EmbeddingRun(out, images, tmp_path / "x", ByBox())
    with pytest.raises(PseudoLabelError, match="another folder than that of the boxes"):
        EmbeddingRun(folders[0], images, folders[0], ByBox())
    (folders[0] / shard_name(1, 2)).unlink()
    with pytest.raises(PseudoLabelError, match="lacks shard-00001-of-00002"):
        EmbeddingRun(*folders, tmp_path / "x", ByBox())
    (tmp_path / "others" / shard_name(1, 2)).rename(folders[0] / shard_name(1, 2))
    with pytest.raises(PseudoLabelError, match="of another run"):
        EmbeddingRun(*folders, tmp_path / "x", ByBox())


def test_images_that_changed_and_too_few_boxes(folders: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="36 boxes cannot make 37 clusters"):
        embed(folders, tmp_path / "out", ByBox(), fit=FitSettings(3, 37))
    assert embed(folders, tmp_path / "out", ByBox())  # the features were kept
    cv2.imwrite(str(folders[1] / "i5.png"), np.zeros((20, 31, 3), np.uint8))
    with pytest.raises(PseudoLabelError, match=r"i5\.png has 31 x 20 pixels.*made on 30 x 20"):
        embed(folders, tmp_path / "second", ByBox())
    (folders[1] / "i5.png").unlink()
    with pytest.raises(FileNotFoundError, match="i5.png"):
        embed(folders, tmp_path / "second", ByBox())
