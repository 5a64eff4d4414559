"""Pictures of a training set that a test set shows again, found by local perceptual hashes.

A hash of the whole picture fails on overhead imagery in both directions: crops of one scene that
overlap by half have unlike hashes, and ships that lie alone on dark water have like ones. So each
picture gets a hash of 256 bits for each of its `NUM_HASHES` strongest corners (ORB: Rublee et al.,
2011, turned to the corner's own direction). Two pictures are near-copies if at least
`MIN_AGREEING` of their hashes, at most `MAX_BITS` bits apart, lie where one shift, turn and scale
puts them, and span at least `MIN_SHARE` of either picture.

The rule flags a picture that was saved, resized, turned, brightened or cropped anew, and crops that
share ground or a large object of one day. It does not flag small objects of one type, the same
place on another day, or pictures without texture like open water, unless their files are equal.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from tqdm import tqdm

NUM_HASHES = 128
MAX_BITS = 40
MIN_AGREEING = 16
MIN_SHARE = 0.01

_SIDE = 512  # greatest side of the picture that is hashed, pixels
_CROWDED = 32  # a part of a hash that more hashes share is of plain ground and tells nothing
_MIN_VOTES = 3
_TOLERANCE = 4.0  # pixels of the picture that is hashed


@dataclass(frozen=True, eq=False)
class Fingerprint:
    """The local hashes of a picture.

    Attributes:
        hashes: (K, 32) uint8, 256 bits each; K is 0 for a picture without corners.
        points: (K, 2) float32 xy of the corners, pixels of the picture halved to 512 or less.
        area: square pixels of that picture.
    """

    hashes: np.ndarray
    points: np.ndarray
    area: float


@dataclass(frozen=True)
class NearCopy:
    """Two pictures that show the same.

    Attributes:
        train: index of the picture of the training set.
        test: index of the picture of the test set.
        agreeing: number of hashes that agree.
        share: share of the picture that they span, the lesser of both, in [0, 1].
    """

    train: int
    test: int
    agreeing: int
    share: float


def fingerprint(image_rgb: np.ndarray) -> Fingerprint:
    """Compute the local hashes of a picture.

    Args:
        image_rgb: (H, W, 3) uint8.

    Returns:
        the hashes.
    """
    grey = cv2.cvtColor(np.ascontiguousarray(image_rgb), cv2.COLOR_RGB2GRAY)
    # Halved until it fits, so that crops of one image mostly keep one scale; by means of areas, or
    # fine texture would make other corners at each scale.
    while max(grey.shape) > _SIDE:
        size = [max(1, side // 2) for side in grey.shape[::-1]]
        grey = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)

    finder = cv2.ORB.create(NUM_HASHES, scaleFactor=1.3, nlevels=5, fastThreshold=10)
    corners, hashes = finder.detectAndCompute(grey, None)
    if hashes is None:
        hashes = np.zeros((0, 32), np.uint8)
    points = np.array([corner.pt for corner in corners], np.float32).reshape(-1, 2)
    return Fingerprint(hashes, points, float(grey.size))


def find_near_copies(
    train: Sequence[Fingerprint], test: Sequence[Fingerprint], *, progress: bool = True
) -> list[NearCopy]:
    """Find the pictures of a test set that a training set shows, too.

    Only pairs of pictures with a few nearly equal hashes are compared, so that the time grows with
    the number of pictures and not with that of pairs.

    Args:
        train: of the training pictures.
        test: of the test pictures.
        progress: show a bar.

    Returns:
        the pairs, best first.
    """
    found = []
    pairs = _candidates(train, test)
    for i, j in tqdm(pairs, desc="near-copies", unit="pair", delay=2, disable=not progress):
        agreeing, share = _compare(train[i], test[j])
        if agreeing >= MIN_AGREEING and share >= MIN_SHARE:
            found.append(NearCopy(i, j, agreeing, share))
    return sorted(found, key=lambda pair: (-pair.agreeing, pair.train, pair.test))


def _candidates(train: Sequence[Fingerprint], test: Sequence[Fingerprint]) -> list[tuple[int, int]]:
    """Return the pairs of pictures that share `_MIN_VOTES` parts of hashes or more.

    A hash is eight parts of 32 bits: of two that differ in fewer than eight bits, at least one
    part is equal, and a sorted list finds it without comparing all with all.
    """
    sides = []
    for prints in (train, test):
        owners = np.repeat(np.arange(len(prints)), [len(one.hashes) for one in prints])
        hashes = [one.hashes for one in prints] or [np.zeros((0, 32), np.uint8)]
        sides.append((owners, np.ascontiguousarray(np.concatenate(hashes)).view(np.uint32)))

    (train_owners, train_parts), (test_owners, test_parts) = sides
    votes: Counter[int] = Counter()
    for part in range(train_parts.shape[1]):
        order = np.argsort(train_parts[:, part], kind="stable")
        values = train_parts[order, part]
        low = np.searchsorted(values, test_parts[:, part], "left")
        counts = np.searchsorted(values, test_parts[:, part], "right") - low
        counts[counts > _CROWDED] = 0

        # All positions low, low + 1, ... of all test hashes as one array.
        first = np.repeat(low - np.cumsum(counts) + counts, counts)
        owners = train_owners[order[first + np.arange(counts.sum())]]
        pairs = owners * len(test) + np.repeat(test_owners, counts)
        numbers, times = np.unique(pairs, return_counts=True)
        votes.update(dict(zip(numbers.tolist(), times.tolist())))

    chosen = sorted(number for number, times in votes.items() if times >= _MIN_VOTES)
    return [divmod(number, len(test)) for number in chosen]


def _compare(one: Fingerprint, other: Fingerprint) -> tuple[int, float]:
    """Return how many hashes of two pictures agree, and the share of a picture they span."""
    bits = one.hashes.view(np.uint64)[:, None] ^ other.hashes.view(np.uint64)[None]
    distances = np.bitwise_count(bits).sum(axis=2)
    nearest, back = distances.argmin(axis=1), distances.argmin(axis=0)
    rows = np.arange(len(nearest))
    # Mutual nearest ones: a hash of repeated texture has many that are equally near.
    rows = rows[(back[nearest] == rows) & (distances[rows, nearest] <= MAX_BITS)]
    if len(rows) < MIN_AGREEING:
        return 0, 0.0

    start, end = one.points[rows], other.points[nearest[rows]]
    _, inside = cv2.estimateAffinePartial2D(start, end, ransacReprojThreshold=_TOLERANCE)
    if inside is None:
        return 0, 0.0
    kept = inside[:, 0] > 0
    shares = [
        cv2.contourArea(cv2.convexHull(points[kept])) / area
        for points, area in ((start, one.area), (end, other.area))
    ]
    return int(kept.sum()), float(min(shares))
