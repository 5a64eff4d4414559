"""Runs of pseudo-labelling: the same result however they are cut, killed or spread."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from rsd2.data.formats.pseudo_labels import PseudoLabelError, read_folder
from rsd2.projects.mutdet.box_filters import BoxFilters
from rsd2.projects.mutdet.label_run import (
    Labeller,
    UnreadableImageError,
    label_folder,
    list_images,
)
from rsd2.projects.mutdet.proposals import MaskProposal


@dataclass(frozen=True)
class BrightPixels:
    """A source that proposes every bright pixel, and the whole of a bright image."""

    threshold: int = 200

    def settings(self) -> dict[str, Any]:
        return {"source": "bright", "threshold": self.threshold}

    def __call__(self, image: np.ndarray) -> Sequence[MaskProposal]:
        ys, xs = np.nonzero(image[:, :, 0] > self.threshold)
        one = np.ones((1, 1), bool)
        return [MaskProposal(one, int(x), int(y), float(image[y, x, 0])) for y, x in zip(ys, xs)]


LABELLER = Labeller(BrightPixels())


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Eleven images with 0, 1, ... bright pixels, one in a sub-folder."""
    root = tmp_path / "images"
    (root / "sub").mkdir(parents=True)
    for count in range(11):
        image = np.zeros((20, 30, 3), np.uint8)
        image[2, 1 : 2 * count : 2] = 210 + count
        name = "sub/x y.png" if count == 5 else f"i{count:02d}.png"
        cv2.imwrite(str(root / name), image)
    (root / "notes.txt").write_text("no image")
    (root / ".hidden.png").write_text("no image")
    return root


def digests(folder: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.glob("shard-*.npz"))
    }


def test_images_of_linked_folders_are_listed(images: Path, tmp_path: Path) -> None:
    before = list_images(images)
    (images / "sub").rename(tmp_path / "elsewhere")
    (images / "sub").symlink_to(tmp_path / "elsewhere")
    assert list_images(images) == before and any(name.startswith("sub/") for name in before)


def test_every_image_is_labelled_once(images: Path, tmp_path: Path) -> None:
    assert label_folder(images, tmp_path / "out", LABELLER, progress=False).is_file()
    records, header = read_folder(tmp_path / "out")
    assert [r.file_name for r in records] == list_images(images)
    assert {r.file_name: len(r.boxes) for r in records}["sub/x y.png"] == 5
    assert (records[0].height, records[0].width) == (20, 30)
    np.testing.assert_array_equal(records[1].boxes, [[1.5, 2.5, 1, 1, 0]])  # one pixel is a box
    assert header.counts == {"proposals": 55, "boxes": 55, "images_without_boxes": 1}
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["shard-00000-of-00001.npz"]


def test_workers_and_parts_do_not_change_a_byte(images: Path, tmp_path: Path) -> None:
    results = []
    for name, options in {
        "a": {},
        "b": {"part_size": 1},
        "c": {"part_size": 3, "num_workers": 2},
    }.items():
        label_folder(images, tmp_path / name, LABELLER, progress=False, **options)
        results.append(digests(tmp_path / name))
    assert results[0] == results[1] == results[2]


def test_shards_hold_the_same_as_one(images: Path, tmp_path: Path) -> None:
    label_folder(images, tmp_path / "one", LABELLER, progress=False)
    for index in (2, 0, 1):
        label_folder(images, tmp_path / "many", LABELLER, shard=(index, 3), progress=False)
    one, many = read_folder(tmp_path / "one"), read_folder(tmp_path / "many")
    assert [r.file_name for r in one[0]] == [r.file_name for r in many[0]]
    for first, second in zip(one[0], many[0]):
        np.testing.assert_array_equal(first.boxes, second.boxes)
    assert one[1].run_id == many[1].run_id and one[1].counts == many[1].counts


def test_a_killed_run_continues_to_the_same_bytes(
    images: Path, tmp_path: Path, repository: Path
) -> None:
    """Kill the command itself, by the signal that nobody can catch, after some parts are saved."""
    for index in range(30):
        cv2.imwrite(
            str(images / f"n{index:02d}.png"),
            np.random.default_rng(index).integers(0, 255, (96, 96, 3), np.uint8),
        )
    tool = repository / "projects" / "MutDet" / "tools" / "make_pseudo_labels.py"
    command = [sys.executable, str(tool), "--images", str(images), "--part-size", "2"]
    command += ["--num-workers", "0", "--output"]
    subprocess.run([*command, str(tmp_path / "whole")], check=True, capture_output=True)
    killed = tmp_path / "killed"
    process = subprocess.Popen(
        [*command, str(killed)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while len(list(killed.glob(".parts-*/part-*.npz"))) < 3:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert list(killed.glob(".parts-*/part-*.npz")) and not list(killed.glob("shard-*"))
    subprocess.run([*command, str(killed)], check=True, capture_output=True)
    assert digests(killed) == digests(tmp_path / "whole")
    assert not list(killed.glob(".parts-*"))


def test_parts_that_are_done_are_not_done_again(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def counted(self: BrightPixels, image: np.ndarray) -> list[MaskProposal]:
        calls.append(1)
        if len(calls) == 8:
            raise KeyboardInterrupt
        return []

    monkeypatch.setattr(BrightPixels, "__call__", counted)
    with pytest.raises(KeyboardInterrupt):
        label_folder(images, tmp_path / "out", LABELLER, part_size=2, progress=False)
    label_folder(images, tmp_path / "out", LABELLER, part_size=2, progress=False)
    assert len(calls) == 8 + 11 - 6  # three parts of two were saved
    label_folder(images, tmp_path / "out", LABELLER, progress=False)
    assert len(calls) == 13


def test_parts_of_another_size_or_damaged_are_made_again(images: Path, tmp_path: Path) -> None:
    label_folder(images, tmp_path / "whole", LABELLER, progress=False)
    out = tmp_path / "out"
    (images / "i10.png").rename(tmp_path / "kept.png")
    (images / "i10.png").write_bytes(b"no image")
    with pytest.raises(UnreadableImageError):
        label_folder(images, out, LABELLER, part_size=2, progress=False)
    parts = sorted(out.glob(".parts-*/part-*.npz"))
    assert len(parts) == 4
    parts[0].write_bytes(parts[0].read_bytes()[:100])
    (tmp_path / "kept.png").replace(images / "i10.png")
    label_folder(images, out, LABELLER, part_size=3, progress=False)
    assert digests(out) == digests(tmp_path / "whole")


def test_unreadable_images_stop_the_run_or_are_listed(images: Path, tmp_path: Path) -> None:
    (images / "i03.png").write_bytes((images / "i03.png").read_bytes()[:40])
    with pytest.raises(UnreadableImageError, match=r"i03\.png.*--unreadable skip"):
        label_folder(images, tmp_path / "out", LABELLER, part_size=1, progress=False)
    assert len(list((tmp_path / "out").glob(".parts-*/part-*.npz"))) == 3  # nothing is lost
    label_folder(images, tmp_path / "out", LABELLER, skip_unreadable=True, progress=False)
    records, header = read_folder(tmp_path / "out")
    assert list(header.skipped) == ["i03.png"] and "i03.png" in header.skipped["i03.png"]
    assert len(records) == 10 and header.num_images == 11


def test_a_folder_of_another_run_is_refused(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    label_folder(images, out, LABELLER, progress=False)
    others = {
        "threshold: 200 there, 100 now": {"labeller": Labeller(BrightPixels(100))},
        "num_shards: 1 there, 2 now": {"shard": (0, 2)},
        "top_k": {"labeller": Labeller(BrightPixels(), BoxFilters(top_k=1))},
    }
    for message, change in others.items():
        with pytest.raises(PseudoLabelError, match=message):
            label_folder(images, out, **({"labeller": LABELLER, "progress": False} | change))
    (images / "i00.png").unlink()
    with pytest.raises(PseudoLabelError, match="num_images: 11 there, 10 now"):
        label_folder(images, out, LABELLER, progress=False)
    with pytest.raises(PseudoLabelError, match="another run"):  # of unfinished runs, too
        (out / ".parts-x").mkdir()
        (out / "shard-00000-of-00001.npz").rename(out / ".parts-x" / "part-000000.npz")
        label_folder(images, out, LABELLER, progress=False)


def test_folders_without_images_and_wrong_shards(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no image folder"):
        label_folder(tmp_path / "none", tmp_path / "out", LABELLER)
    with pytest.raises(FileNotFoundError, match=r"holds no file ending in \.png"):
        label_folder(tmp_path, tmp_path / "out", LABELLER)
    for options in ({"shard": (2, 2)}, {"part_size": 0}):
        with pytest.raises(ValueError, match="index < number"):
            label_folder(tmp_path, tmp_path / "out", LABELLER, **options)
    assert not (tmp_path / "out").exists()
