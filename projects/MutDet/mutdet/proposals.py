"""Sources of object proposals: from an image to scored masks. One of them needs no weights.

A source is anything that fits `ProposalSource`. `FelzenszwalbProposals` needs nothing else;
`rsd2.projects.mutdet.sam_proposals` wraps Segment Anything.

Shapes: H, W height and width of the image; h, w those of a mask's window.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np
from skimage.measure import regionprops
from skimage.segmentation import felzenszwalb

# How far a component's surroundings reach, pixels.
_RING = 2


class MaskProposal(NamedTuple):
    """A region that may be an object.

    Args:
        mask: (h, w) bool, the window of the image that holds the region.
        x: column of the window's first pixel in the image.
        y: row of the window's first pixel in the image.
        score: higher for likelier objects.
    """

    mask: np.ndarray
    x: int
    y: int
    score: float


class ProposalSource(Protocol):
    """Source of proposals."""

    def __call__(self, image: np.ndarray) -> Sequence[MaskProposal]:
        """Propose regions.

        Args:
            image: (H, W, 3) uint8 RGB.

        Returns:
            Proposals inside the image, possibly none; equal images give equal proposals.
        """

    def settings(self) -> dict[str, Any]:
        """Return everything that determines the result, as plain values that JSON can hold."""


@dataclass(frozen=True)
class FelzenszwalbProposals:
    """Segments of several scales, the most conspicuous first: proposals without any training.

    DETReg (arXiv 2106.04550, section 3) takes its boxes from selective search, which begins with
    the segmentation of Felzenszwalb and Huttenlocher (2004) at a fine scale and merges it step by
    step. Here the segmentation at a coarser scale takes the place of the merging. A segment's score
    is the distance of its mean colour from that of its surroundings in CIELAB, times the root of
    its area, and half as much for each border of the image that it touches: background mostly
    reaches the border. Nothing is tuned to any kind of object or colour.

    Attributes:
        scales: scales of the segmentation; larger values give larger segments.
        sigma: deviation of the Gaussian that first smooths the image, pixels.
        min_size: segments of fewer pixels are merged with a neighbour.
        max_area_fraction: segments above this share of the image are background, in (0, 1].
    """

    scales: tuple[float, ...] = (150.0, 400.0)
    sigma: float = 0.5
    min_size: int = 30
    max_area_fraction: float = 0.3

    def __post_init__(self) -> None:
        if not self.scales or min(self.scales) <= 0 or self.sigma < 0 or self.min_size < 1:
            raise ValueError(
                "scales must be one or more numbers > 0, sigma >= 0 and min_size >= 1, got "
                f"{self.scales}, {self.sigma}, {self.min_size}"
            )
        if not 0 < self.max_area_fraction <= 1:
            raise ValueError(f"max_area_fraction must be in (0, 1], got {self.max_area_fraction}")

    def settings(self) -> dict[str, Any]:
        """Return the attributes and the name of the source."""
        return {"source": "felzenszwalb", **asdict(self)}

    def __call__(self, image: np.ndarray) -> list[MaskProposal]:
        """Propose segments of an image (H, W, 3) uint8 RGB."""
        colors = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
        proposals: list[MaskProposal] = []
        for scale in self.scales:
            segments = felzenszwalb(
                image, scale=scale, sigma=self.sigma, min_size=self.min_size, channel_axis=-1
            )
            proposals += self._score(segments, colors)
        return proposals

    def _score(self, segments: np.ndarray, colors: np.ndarray) -> Iterator[MaskProposal]:
        """Score the segments of one segmentation (H, W), given the colours (H, W, 3) in CIELAB."""
        height, width = segments.shape
        for region in regionprops(segments + 1):  # 0 would be ignored
            if region.area > self.max_area_fraction * height * width:
                continue

            top, left, bottom, right = region.bbox
            # The window is wider than the segment by the ring, as far as the image reaches.
            y, x = max(top - _RING, 0), max(left - _RING, 0)
            below, behind = min(bottom + _RING, height), min(right + _RING, width)
            mask = np.zeros((below - y, behind - x), dtype=np.uint8)
            mask[top - y : bottom - y, left - x : right - x] = region.image
            ring = cv2.dilate(mask, np.ones((2 * _RING + 1,) * 2, np.uint8)) - mask

            window = colors[y:below, x:behind]
            inside, around = (np.array(cv2.mean(window, part)[:3]) for part in (mask, ring))
            touched = (top == 0) + (left == 0) + (bottom == height) + (right == width)
            contrast = float(np.linalg.norm(inside - around))
            # Background mostly reaches the border of the image: each border touched halves the
            # score.
            score = contrast * float(region.area) ** 0.5 * 0.5**touched
            yield MaskProposal(region.image, int(left), int(top), score)
