"""Checks of the image files of data sets, and the comparison of training with test images."""

from __future__ import annotations

import hashlib
import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from rsd2.data.windows.tiling import crop_window
from rsd2.io.image_io import read_image, read_image_kind
from rsd2.io.worker_pool import run_in_processes

from .findings import Finding, Findings
from .leakage import Fingerprint, find_near_copies, fingerprint
from .pictures import DataSet, Picture

_SAME_GROUND = 0.9  # correlation of the pixels that two windows of one source share
_ODD_MODES = {
    "alpha_channel": ("RGBA", "LA", "PA", "La", "RGBa", "RGB+A", "L+A", "P+A"),
    "sixteen_bit_image": ("I", "I;16", "I;16B", "I;16L", "I;16N"),
}

Prints = Mapping[Picture, Fingerprint]


@dataclass(frozen=True, eq=False)
class ImageFacts:
    """What a worker process learns from an image file.

    Attributes:
        problem: why the image cannot be read; empty if it can.
        mode: Pillow's name of its pixels; empty for scenes, whose reader knows all kinds.
        orientation: EXIF orientation, 1 to 8.
        size: (height, width) of the file in pixels; None for scenes.
        digest: digest of the file; empty if it was not asked for.
        prints: fingerprint of each picture of the file, if they were asked for.
    """

    problem: str = ""
    mode: str = ""
    orientation: int = 1
    size: tuple[int, int] | None = None
    digest: bytes = b""
    prints: tuple[Fingerprint, ...] = ()


@contextmanager
def quiet() -> Iterator[None]:
    """Keep readers from logging what becomes a finding, inside the block."""
    logger = logging.getLogger("rsd2")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def check_images(
    data: DataSet,
    findings: Findings,
    *,
    num_workers: int = 0,
    with_prints: bool = False,
    progress: bool = True,
) -> tuple[dict[Picture, Fingerprint], dict[Picture, bytes]]:
    """Decode all images of a data set and judge the files.

    Args:
        data: the data set.
        findings: gets images that cannot be read, or are read otherwise than they look.
        num_workers: processes; 0 works in this one.
        with_prints: compute fingerprints, for `find_leaks`.
        progress: show a bar.

    Returns:
        the fingerprint of each picture that could be read, and the digest of its file; both empty
        if they were not asked for.
    """
    # Virtual tiles share files, and each file is decoded once.
    by_file: dict[str, list[Picture]] = defaultdict(list)
    for picture in data.pictures:
        by_file[picture.path].append(picture)

    groups = list(by_file.values())
    work = partial(_look_at, with_prints=with_prints)
    # Without the objects, which the workers do not need.
    tasks = [[_without_objects(picture) for picture in group] for group in groups]
    results = run_in_processes(work, tasks, num_workers)
    bar = tqdm(
        zip(groups, results), f"images of {data.name}", len(groups), delay=2, disable=not progress
    )

    prints: dict[Picture, Fingerprint] = {}
    digests: dict[Picture, bytes] = {}
    for group, facts in bar:
        _judge(data, group[0], facts, findings)
        prints.update(zip(group, facts.prints))
        if facts.digest:
            digests.update((picture, facts.digest) for picture in group)
    return prints, digests


def find_leaks(
    train: Sequence[DataSet],
    test: Sequence[DataSet],
    prints: Prints,
    digests: Mapping[Picture, bytes],
    findings: Findings,
    *,
    progress: bool = True,
) -> None:
    """Find what the test sets show of the training sets.

    A test image is reported once for each way in which it leaks: an equal file, a window of the
    same source, a near-copy (see `rsd2.analysis.leakage`).

    Args:
        train: training sets.
        test: test sets.
        prints: of `check_images`, of all sets.
        digests: of `check_images`, of all sets.
        findings: gets the leaks.
        progress: show bars.
    """
    before = [picture for data in train for picture in data.pictures]
    after = [(data.name, picture) for data in test for picture in data.pictures]
    known = _find_equal_files(before, after, digests, findings)
    known |= _find_same_sources(before, after, known, findings, progress)

    first, second = [p for p in before if p in prints], [p for p in after if p[1] in prints]
    pairs = find_near_copies(
        [prints[p] for p in first], [prints[p] for _, p in second], progress=progress
    )
    for pair in pairs:
        name, picture = second[pair.test]
        # One line for each test image: its best copy, and nothing that is known already.
        if picture not in known:
            known.add(picture)
            message = (
                f"shows what {first[pair.train].path} shows: {pair.agreeing} local hashes agree, "
                f"on {pair.share:.0%} of the picture"
            )
            findings.add(
                Finding(
                    "near_copy", name, picture.path, None, message, picture, other=first[pair.train]
                )
            )


def _without_objects(picture: Picture) -> Picture:
    image = picture.image
    light = type(image)(image.file_name, image.height, image.width, [])
    return Picture(picture.path, light, picture.tile, picture.raster)


@quiet()
def _look_at(group: Sequence[Picture], with_prints: bool) -> ImageFacts:
    """Decode a file and fingerprint its pictures; runs in a worker process."""
    path, is_scene = group[0].path, group[0].raster is not None
    mode, orientation, size = "", 1, None
    try:
        if not is_scene:
            mode, orientation = read_image_kind(path)
            pixels = read_image(path)
            size = pixels.shape[:2]

        prints = []
        for picture in group if with_prints else ():
            # Windows of a file that is decoded already.
            is_window = picture.tile is not None and picture.tile.get("virtual")
            if is_scene:
                shown = picture.read()
            elif is_window:
                shown = crop_window(pixels, np.array(picture.place()[1:]))
            else:
                shown = pixels
            prints.append(fingerprint(shown))
        digest = hashlib.sha256(Path(path).read_bytes()).digest() if with_prints else b""
    except (OSError, ValueError) as error:
        return ImageFacts(problem=str(error), mode=mode, orientation=orientation)
    return ImageFacts("", mode, orientation, size, digest, tuple(prints))


def _judge(data: DataSet, picture: Picture, facts: ImageFacts, findings: Findings) -> None:
    """Add what is odd about an image file."""

    def add(kind: str, message: str) -> None:
        shown = None if facts.problem else picture
        findings.add(Finding(kind, data.name, picture.path, None, message, shown))

    if facts.problem:
        add("unreadable_image", facts.problem)
    for kind, modes in _ODD_MODES.items():
        if facts.mode in modes:
            add(kind, f"pixels of mode {facts.mode}")
    if facts.orientation != 1:
        add("exif_orientation", f"EXIF orientation {facts.orientation}")

    # A tile states the size of its source, if it states any.
    tile, image = picture.tile or {}, picture.image
    expected: tuple[int | None, int | None] = (image.height, image.width)
    if tile.get("virtual"):
        expected = (tile.get("source_height"), tile.get("source_width"))
    if facts.size is not None and None not in expected and facts.size != expected:
        stated, found = (f"{size[1]} x {size[0]}" for size in (expected, facts.size))
        add("image_size", f"the labels say {stated} pixels, the image has {found}")


def _find_equal_files(
    before: Iterable[Picture],
    after: Iterable[tuple[str, Picture]],
    digests: Mapping[Picture, bytes],
    findings: Findings,
) -> set[Picture]:
    """Add test images whose file and window are those of a training image."""

    def key(picture: Picture) -> tuple:
        return digests[picture], picture.tile and picture.place()[1:]

    seen = {key(picture): picture for picture in before if picture in digests}
    found = set()
    for name, picture in after:
        same = seen.get(key(picture)) if picture in digests else None
        if same is not None:
            found.add(picture)
            message = f"is {same.path}"
            findings.add(
                Finding("equal_file", name, picture.path, None, message, picture, other=same)
            )
    return found


def _find_same_sources(
    before: Iterable[Picture],
    after: Iterable[tuple[str, Picture]],
    known: set[Picture],
    findings: Findings,
    progress: bool,
) -> set[Picture]:
    """Add test images that are windows of a source of the training images.

    Sources are known by name, and two sets may number their images alike: where windows of one
    name overlap, their pixels decide.
    """
    by_source: dict[str, list[Picture]] = defaultdict(list)
    for picture in before:
        by_source[picture.place()[0]].append(picture)

    found: set[Picture] = set()
    verdicts: dict[str, bool] = {}
    rest = [(name, p) for name, p in after if p not in known and p.place()[0] in by_source]
    for name, picture in tqdm(rest, "sources", unit="image", delay=2, disable=not progress):
        source, *window = picture.place()
        others = by_source[source]
        windows = np.array([other.place()[1:] for other in others])
        low = np.maximum(windows[:, :2], window[:2])
        shared = np.clip(np.minimum(windows[:, 2:], window[2:]) - low, 0, None).prod(axis=1)
        best = others[int(shared.argmax())]
        if shared.max() and source not in verdicts:
            verdicts[source] = _shows_same_ground(best, picture)
        if not verdicts.get(source, True):
            continue

        found.add(picture)
        if shared.max():
            area = (window[2] - window[0]) * (window[3] - window[1])
            kind = "overlapping_tiles"
            message = f"shares {shared.max() / area:.0%} of its pixels with {best.path}"
        else:
            kind, message = "same_source", f"is cut from {source}, as {best.path} is"
        findings.add(Finding(kind, name, picture.path, None, message, picture, other=best))
    return found


def _shows_same_ground(one: Picture, other: Picture) -> bool:
    """Compare the pixels of the area that two windows of one source share."""
    (_, *first), (_, *second) = one.place(), other.place()
    x0, y0 = max(first[0], second[0]), max(first[1], second[1])
    x1, y1 = min(first[2], second[2]), min(first[3], second[3])
    try:
        parts = [
            cv2.resize(
                crop_window(picture.read(), np.array([x0 - x, y0 - y, x1 - x, y1 - y])),
                (64, 64),
                interpolation=cv2.INTER_AREA,
            ).ravel()
            for picture, (x, y) in ((one, first[:2]), (other, second[:2]))
        ]
    except (OSError, ValueError):
        return True  # reported as unreadable; the name is all that is known

    # Plain water has no texture to compare; then equal colours are as much as can be asked for.
    if min(part.std() for part in parts) < 1:
        return bool(np.abs(parts[0].astype(float) - parts[1]).mean() < 1)
    return bool(np.corrcoef(np.stack(parts).astype(float))[0, 1] > _SAME_GROUND)
