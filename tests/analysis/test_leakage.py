"""Copies are found however they were made; other pictures of a kind are not."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from rsd2.analysis.doctor import examine
from rsd2.analysis.doctor_data import read_data_set
from rsd2.analysis.leakage import MIN_AGREEING, find_near_copies, fingerprint
from rsd2.synthetic.scenes.scene import SceneConfig, draw_scene


@pytest.fixture(scope="module")
def scenes() -> list[np.ndarray]:
    """RGB scenes of 512 pixels."""
    config = SceneConfig(size=512, empty_fraction=0.0)
    return [draw_scene(config, 0, index).image for index in range(5)]


def save_as_jpeg(image: np.ndarray) -> np.ndarray:
    return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 70])[1], 1)


COPIES = {
    "saved": save_as_jpeg,
    "shrunk": lambda image: cv2.resize(image, (384, 384), interpolation=cv2.INTER_AREA),
    "turned": lambda image: np.rot90(image, 1),
    "brightened": lambda image: np.clip(image * 1.2 + 10.0, 0, 255).astype(np.uint8),
    "cropped": lambda image: image[60:, 100:],
    "cropped and saved": lambda image: save_as_jpeg(image[:400, :420]),
}


@pytest.mark.parametrize("kind", COPIES)
def test_near_copy_is_found_among_others(kind: str, scenes: list[np.ndarray]) -> None:
    train = [fingerprint(scene) for scene in scenes]
    test = [fingerprint(COPIES[kind](scene)) for scene in scenes[2:4]]
    found = find_near_copies(train, test, progress=False)
    assert {(pair.train, pair.test) for pair in found} == {(2, 0), (3, 1)}
    assert all(0 < pair.share <= 1 for pair in found)


def test_unlike_and_plain_pictures_are_no_copies(scenes: list[np.ndarray]) -> None:
    water = [np.full((64, 80, 3), level, np.uint8) for level in (30, 30)]
    train, test = ([*scenes[:2], water[0]], [*scenes[2:], water[1]])
    prints = [[fingerprint(image) for image in images] for images in (train, test)]
    assert find_near_copies(*prints, progress=False) == []
    assert find_near_copies([], prints[1], progress=False) == []


def place_on_water(
    level: int, corner: tuple[int, int], cell: int, places: np.ndarray
) -> np.ndarray:
    """Draw textured squares of three cells a side at places (N, 2) below and right of a corner."""
    image, rng = np.full((512, 512, 3), level, np.uint8), np.random.default_rng(3)
    for y, x in places + corner:
        texture = rng.integers(0, 256, (3, 3, 3), dtype=np.uint8).repeat(cell, 0).repeat(cell, 1)
        image[y : y + 3 * cell, x : x + 3 * cell] = texture
    return image


@pytest.mark.parametrize(
    ("cell", "places"),
    [
        # One object has many equal hashes, but spans less than 1 % of its picture.
        (4, 12 * np.stack(np.divmod(np.arange(16), 4), axis=1)),
        # Ten small objects that stand alike span more, but few of their hashes are equal.
        (3, 50 * np.stack(np.divmod(np.arange(10), 4), axis=1)),
    ],
)
def test_small_objects_of_one_type_are_no_copies(cell: int, places: np.ndarray) -> None:
    one, other = (
        fingerprint(place_on_water(level, corner, cell, places))
        for level, corner in ((30, (100, 60)), (60, (250, 220)))
    )
    assert len(one.hashes) > MIN_AGREEING
    assert find_near_copies([one], [other], progress=False) == []


def write_set(folder: Path, images: dict[str, np.ndarray]) -> Path:
    """Write images without objects as a data set."""
    for name, image in images.items():
        for part in ("images", "labelTxt"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / "images" / f"{name}.png"), image)
        (folder / "labelTxt" / f"{name}.txt").write_text("10 10 30 10 30 20 10 20 ship 0\n")
    return folder


@pytest.mark.parametrize(
    ("train", "test", "kind"),
    [
        (("P1__256__0___0", 0, 0), ("P1__256__128___0", 0, 128), "overlapping_tiles"),
        (("P1__256__0___0", 0, 0), ("P1__256__256___256", 0, 256), "same_source"),
        # Two sets that number their images alike have other pictures under one name.
        (("P1__256__0___0", 0, 0), ("P1__256__0___0", 1, 0), None),
        (("0001", 0, 0), ("0001", 1, 0), None),
        (("0001", 0, 0), ("0002", 0, 0), "equal_file"),
    ],
)
def test_tiles_of_one_source_are_found(train, test, kind, scenes, tmp_path: Path) -> None:
    sets = []
    for part, (name, number, start) in (("train", train), ("test", test)):
        down = start if kind == "same_source" else 0
        image = scenes[number][down : down + 256, start : start + 256]
        sets.append(read_data_set(str(write_set(tmp_path / part, {name: image}))))
    findings = examine(sets[:1], sets[1:], progress=False).findings
    assert dict(findings.counts) == ({kind: 1} if kind else {})
    for one in findings.first.get(kind, []):
        assert one.file == sets[1].pictures[0].path and one.other is sets[0].pictures[0]
