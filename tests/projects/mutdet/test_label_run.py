"""Runs of pseudo-labelling: the same result however they are cut, killed or spread."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from rsd2.data.formats.pseudo_labels import read_folder
from rsd2.inference.sliding_window import WindowParameters
from rsd2.io.folder_run import FolderTakenError
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


def test_the_size_of_parts_does_not_change_a_byte(images: Path, tmp_path: Path) -> None:
    for size in (1, 3, 16):
        label_folder(images, tmp_path / str(size), LABELLER, part_size=size, progress=False)
    assert digests(tmp_path / "1") == digests(tmp_path / "3") == digests(tmp_path / "16")


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
        "threshold: 200 there, 100 asked for": {"labeller": Labeller(BrightPixels(100))},
        "num_shards: 1 there, 2 asked for": {"shard": (0, 2)},
        "top_k": {"labeller": Labeller(BrightPixels(), BoxFilters(top_k=1))},
    }
    for message, change in others.items():
        with pytest.raises(FolderTakenError, match=message):
            label_folder(images, out, **({"labeller": LABELLER, "progress": False} | change))
    (images / "i00.png").unlink()
    with pytest.raises(FolderTakenError, match="num_images: 11 there, 10 asked for"):
        label_folder(images, out, LABELLER, progress=False)
    (images / "notes.txt").rename(images / "other.png")
    with pytest.raises(FolderTakenError, match="hash of settings and images: .* there"):
        label_folder(images, out, LABELLER, progress=False)


def test_folders_without_images_and_empty_parts(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no image folder"):
        label_folder(tmp_path / "none", tmp_path / "out", LABELLER)
    with pytest.raises(FileNotFoundError, match=r"holds no file ending in \.png"):
        label_folder(tmp_path, tmp_path / "out", LABELLER)
    with pytest.raises(ValueError, match="part_size must be >= 1, got 0"):
        label_folder(tmp_path, tmp_path / "out", LABELLER, part_size=0)
    assert not (tmp_path / "out").exists()


class BrightRegions(BrightPixels):
    """A source that proposes every connected region of bright pixels."""

    def __call__(self, image: np.ndarray) -> Sequence[MaskProposal]:
        bright = (image[:, :, 0] > self.threshold).astype(np.uint8)
        count, labels, stats, _ = cv2.connectedComponentsWithStats(bright)
        found = []
        for index in range(1, count):
            x, y, w, h = stats[index, :4].tolist()
            found.append(MaskProposal(labels[y : y + h, x : x + w] == index, x, y, float(w * h)))
        return found


def test_large_images_are_labelled_in_windows_without_pieces_at_their_seams() -> None:
    image = np.zeros((64, 150, 3), np.uint8)
    objects = [(4, 50), (60, 76), (90, 130)]  # the first and the last cross the edge of a window
    for start, end in objects:
        image[20:26, start:end] = 255
    whole, _ = Labeller(BrightRegions())(image, "a.png")
    labels, counts = Labeller(BrightRegions(), windows=WindowParameters(64, 32))(image, "a.png")
    kept, _ = Labeller(BrightRegions(), windows=WindowParameters(64, 32, seams="keep"))(image, "a")

    assert len(kept.boxes) > len(labels.boxes) == len(whole.boxes) == 3
    assert counts["pieces_at_seams"] > 0
    order, expected = np.argsort(labels.boxes[:, 0]), np.argsort(whole.boxes[:, 0])
    np.testing.assert_allclose(labels.boxes[order], whole.boxes[expected], atol=1e-4)


def test_windows_are_part_of_the_settings_only_where_there_are_any() -> None:
    assert "windows" not in Labeller(BrightPixels()).settings(), "old runs keep their names"
    settings = Labeller(BrightPixels(), windows=WindowParameters(64, 16)).settings()
    assert settings["windows"] == {"window": 64, "overlap": 16, "padding": False, "seams": "drop"}
    with pytest.raises(ValueError, match="dropped or kept, not joined"):
        Labeller(BrightPixels(), windows=WindowParameters(64, 16, seams="join"))
