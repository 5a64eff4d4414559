"""Files of pseudo-labels: what is written is read; what does not belong together is refused.

Shapes: N objects of an image, D embedding dimension.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rsd2.data.formats.pseudo_labels import (
    EmbeddingHeader,
    PseudoLabelError,
    PseudoLabels,
    ShardHeader,
    find_shards,
    read_folder,
    read_header,
    read_shard,
    shard_name,
    write_shard,
)

EMBEDDING = EmbeddingHeader("e" * 16, "b" * 16, "r" * 16, dim=4, num_clusters=3)


def make_record(name: str, count: int, embedded: bool = True) -> PseudoLabels:
    rng = np.random.default_rng(count)
    vectors = rng.standard_normal((count, 4))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return PseudoLabels(
        name,
        60,
        80,
        rng.uniform(1, 50, (count, 5)).astype(np.float32),
        rng.uniform(0, 1, count).astype(np.float32),
        areas=np.full(count, 7, np.float32),
        embeddings=vectors.astype(np.float32) if embedded else None,
        clusters=rng.integers(0, 3, count) if embedded else None,
    )


def make_header(shard: int = 0, num_shards: int = 1, embedded: bool = True, **more) -> ShardHeader:
    values = {"num_images": 3, "settings": {"source": "test"}} | more
    return ShardHeader(
        "b" * 16,
        shard=shard,
        num_shards=num_shards,
        embedding=EMBEDDING if embedded else None,
        **values,
    )


def assert_equal(one: PseudoLabels, two: PseudoLabels) -> None:
    assert (one.file_name, one.height, one.width) == (two.file_name, two.height, two.width)
    for name in ("boxes", "scores", "areas", "embeddings", "clusters"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))


def rewrite(path: Path, **arrays: np.ndarray) -> None:
    """Change arrays of a file behind the format's back."""
    with np.load(path) as content:
        values = {name: content[name] for name in content.files} | arrays
    with path.open("wb") as stream:
        np.savez(stream, **values)


@pytest.mark.parametrize("embedded", [True, False])
def test_round_trip_with_images_without_boxes(tmp_path: Path, embedded: bool) -> None:
    records = [
        make_record(name, n, embedded) for name, n in (("a/ü 1.png", 3), ("b.png", 0), ("c", 1))
    ]
    path, header = tmp_path / shard_name(0, 1), make_header(embedded=embedded)
    write_shard(path, records, header)
    found, read = read_shard(path)
    assert read == header == read_header(path)
    assert len(found) == 3
    for one, two in zip(records, found):
        assert_equal(one, two)
    assert found[0].boxes.dtype == np.float32
    if embedded:
        assert found[1].embeddings.shape == (0, 4) and found[1].clusters.dtype == np.int64


def test_shard_without_any_image_and_equal_bytes(tmp_path: Path) -> None:
    header = make_header(num_images=1, skipped={"broken.png": "truncated"})
    write_shard(tmp_path / shard_name(0, 1), [], header)
    assert read_shard(tmp_path / shard_name(0, 1)) == ([], header)
    assert read_folder(tmp_path) == ([], header)
    digests = set()
    for name in ("x.npz", "y.npz"):
        write_shard(tmp_path / name, [make_record("a", 5)], make_header())
        digests.add(hashlib.sha256((tmp_path / name).read_bytes()).hexdigest())
        os.utime(tmp_path / name, (0, 0))
    assert len(digests) == 1
    assert not list(tmp_path.glob(".*"))  # nothing half-written is left


def test_a_folder_is_the_same_whatever_the_number_of_shards(tmp_path: Path) -> None:
    records = [make_record(name, n) for name, n in (("a", 2), ("b", 1), ("c", 4))]
    for count in (1, 2, 4):
        folder = tmp_path / str(count)
        folder.mkdir()
        for i in range(count):
            write_shard(folder / shard_name(i, count), records[i::count], make_header(i, count))
        found, header = read_folder(folder)
        assert [r.file_name for r in found] == ["a", "b", "c"] and header.num_images == 3
        for one, two in zip(records, found):
            assert_equal(one, two)


def test_missing_shards_mixed_runs_and_lost_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PseudoLabelError, match="make_pseudo_labels.py"):
        find_shards(tmp_path)
    records = [make_record(name, 1) for name in "abc"]
    write_shard(tmp_path / shard_name(0, 2), records[::2], make_header(0, 2))
    with pytest.raises(PseudoLabelError, match=r"lacks shard-00001-of-00002.npz \(1 of 2"):
        read_folder(tmp_path)
    second = tmp_path / shard_name(1, 2)
    write_shard(second, records[1::2], replace(make_header(1, 2), run_id="x" * 16))
    with pytest.raises(PseudoLabelError, match=r"00001-of-00002.npz is of run .*00000-of-00002"):
        read_folder(tmp_path)
    other = replace(EMBEDDING, run_id="f" * 16)  # the same boxes, embedded by another run
    write_shard(second, records[1::2], replace(make_header(1, 2), embedding=other))
    with pytest.raises(PseudoLabelError, match="is of run f{16}, .*of run e{16}"):
        read_folder(tmp_path)
    write_shard(second, [], make_header(1, 2))
    with pytest.raises(PseudoLabelError, match="hold 2 different images, their run has 3"):
        read_folder(tmp_path)
    write_shard(second, records[:1], make_header(1, 2))  # an image twice
    with pytest.raises(PseudoLabelError, match="hold 2 different images, their run has 3"):
        read_folder(tmp_path)
    write_shard(second, records[1::2], make_header(0, 2))
    with pytest.raises(PseudoLabelError, match="says that it is shard-00000-of-00002"):
        read_folder(tmp_path)
    second.rename(tmp_path / shard_name(1, 3))
    with pytest.raises(PseudoLabelError, match="several runs: of 00002 and of 00003"):
        read_folder(tmp_path)


def test_arrays_that_do_not_fit_are_not_written(tmp_path: Path) -> None:
    path, good = tmp_path / shard_name(0, 1), make_record("a", 3)
    bad = {
        "2 scores": replace(good, scores=good.scores[:2]),
        "2 embeddings": replace(good, embeddings=good.embeddings[:2]),
        "a has no areas": replace(good, areas=None),
        "no unit vectors": replace(good, embeddings=2 * good.embeddings),
        "clusters 0 to 3, the header has 3": replace(good, clusters=np.array([0, 3, 1])),
        "boxes holds NaN": replace(good, boxes=good.boxes * np.float32(np.nan)),
        "a side of a box is not positive": replace(good, boxes=good.boxes * [1, 1, 0, 1, 1]),
        "do not fit together": replace(good, embeddings=good.embeddings[:, :3]),
    }
    for message, record in bad.items():
        with pytest.raises(PseudoLabelError, match=message):
            write_shard(path, [record, make_record("b", 2)], make_header())
    for record, header in ((good, make_header(embedded=False)), (good, None)):
        record = record if header else make_record("a", 3, embedded=False)
        with pytest.raises(PseudoLabelError, match="go together"):
            write_shard(path, [record], header or make_header())
    assert not path.exists()


def test_boxes_cannot_change_under_their_embeddings(tmp_path: Path) -> None:
    path = tmp_path / shard_name(0, 1)
    records = [make_record("a", 3), make_record("b", 2)]
    write_shard(path, records, make_header())
    boxes = np.concatenate([r.boxes for r in records])
    rewrite(path, boxes=boxes[::-1])
    with pytest.raises(PseudoLabelError, match="are not those it was written with"):
        read_shard(path)
    rewrite(path, boxes=boxes, counts=np.array([2, 3]))
    with pytest.raises(PseudoLabelError, match="are not those it was written with"):
        read_shard(path)
    rewrite(path, counts=np.array([3, 3]))
    with pytest.raises(PseudoLabelError, match=r"boxes has shape \(5, 5\).*\(6, 5\)"):
        read_shard(path)
    rewrite(path, counts=np.array([3, 2]), embeddings=records[0].embeddings)
    with pytest.raises(PseudoLabelError, match=r"embeddings has shape \(3, 4\)"):
        read_shard(path)


def test_damaged_and_foreign_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / shard_name(0, 1)
    with pytest.raises(PseudoLabelError, match=f"there is no file {path}"):
        read_shard(path)
    write_shard(path, [make_record("a", 3)], make_header())
    whole = path.read_bytes()
    for data in (whole[: len(whole) // 2], b"", b"no zip", whole[:900] + b"\xff" + whole[901:]):
        path.write_bytes(data)
        with pytest.raises(PseudoLabelError, match=str(path)):
            read_shard(path)
    with path.open("wb") as stream:
        np.savez(stream, boxes=np.zeros((1, 5)))
    with pytest.raises(PseudoLabelError, match="no header of pseudo-labels"):
        read_shard(path)
    with pytest.raises(PseudoLabelError, match="no file of pseudo-labels"):
        read_header(path)
    with path.open("wb") as stream:  # an array of objects is a pickle
        np.savez(stream, header=np.array([{"format": 1}], dtype=object))
    with pytest.raises(PseudoLabelError, match="cannot be read"):
        read_shard(path)
