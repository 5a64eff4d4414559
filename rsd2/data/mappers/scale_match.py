"""Scale match: resize pre-training images so that their objects are as large as the target's.

Source: Yu et al., "Scale Match for Tiny Person Detection", WACV 2020. The size of an
object is the square root of its box's area, in pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from detectron2.data import DatasetCatalog
from detectron2.data import transforms as T
from detectron2.structures import BoxMode

from .image_mapper import is_ignored

NUM_BINS = 100
"""Number of bins of the histograms; the first and the last bin hold the tails."""


class RandomSource(Protocol):
    """A generator of numpy, or ``numpy.random`` itself."""

    def choice(self, a: int, *, p: np.ndarray) -> Any:
        """Draw one of 0 .. a - 1 with the probabilities (a,)."""

    def uniform(self, low: float, high: float) -> float:
        """Draw a number from [low, high)."""


@dataclass(frozen=True)
class SizeHistogram:
    """Distribution of sizes as a histogram whose end bins hold the tails.

    Attributes:
        edges: (B + 1,) float64, pixels, non-decreasing.
        weights: (B,) float64, sum 1.
    """

    edges: np.ndarray
    weights: np.ndarray

    def __post_init__(self) -> None:
        """Validate edges and weights."""
        edges = np.asarray(self.edges, dtype=np.float64)
        weights = np.asarray(self.weights, dtype=np.float64)
        if edges.ndim != 1 or len(edges) != len(weights) + 1 or len(weights) < 1:
            raise ValueError(f"got {edges.shape} edges for {weights.shape} weights")
        if (np.diff(edges) < 0).any() or edges[0] < 0 or (weights < 0).any():
            raise ValueError("edges must not decrease and weights must not be negative")
        if not np.isclose(weights.sum(), 1.0):
            raise ValueError(f"weights must sum to 1, got {weights.sum()}")
        object.__setattr__(self, "edges", edges)
        object.__setattr__(self, "weights", weights)

    @classmethod
    def from_sizes(
        cls, sizes: Sequence[float] | np.ndarray, num_bins: int = NUM_BINS
    ) -> SizeHistogram:
        """Count sizes.

        Args:
            sizes: pixels, > 0, at least one.
            num_bins: B >= 3. The first and the last bin take a share of 1 / B each, however far
                the tails reach; the others are equally wide.

        Returns:
            The histogram.

        Raises:
            ValueError: if there is no size, or one that is not positive and finite.
        """
        ordered = np.sort(np.asarray(sizes, dtype=np.float64))
        if not len(ordered) or num_bins < 3 or not np.isfinite(ordered).all() or ordered[0] <= 0:
            raise ValueError(
                f"a histogram needs positive sizes and 3 bins or more, got {len(ordered)} sizes "
                f"from {ordered[:1]} on and {num_bins} bins; check the annotations"
            )

        inner = np.quantile(ordered, (1 / num_bins, 1 - 1 / num_bins))
        edges = np.concatenate(
            [ordered[:1], np.linspace(inner[0], inner[1], num_bins - 1), ordered[-1:]]
        )

        # A size on several equal edges counts in the last of their bins. The last bin of all also
        # holds its upper end.
        index = np.clip(np.searchsorted(edges, ordered, side="right") - 1, 0, num_bins - 1)
        counts = np.bincount(index, minlength=num_bins)
        return cls(edges, counts / counts.sum())

    def sample(self, rng: RandomSource) -> float:
        """Draw a size: a bin by its weight, within it uniformly.

        Args:
            rng: generator that draws the size.

        Returns:
            the size in pixels.
        """
        index = int(rng.choice(len(self.weights), p=self.weights))
        return float(rng.uniform(self.edges[index], self.edges[index + 1]))

    def rank(self, size: float) -> float:
        """Return the share of the distribution below a size, linear within a bin.

        Args:
            size: size in pixels.

        Returns:
            the share, in [0, 1].
        """
        cumulative = np.concatenate([[0.0], np.cumsum(self.weights)])
        return float(np.interp(size, self.edges, cumulative))

    def quantile(self, rank: float) -> float:
        """Return the size below which a share of the distribution lies, linear within a bin.

        Args:
            rank: share of the distribution, in [0, 1].

        Returns:
            the size in pixels.
        """
        cumulative = np.concatenate([[0.0], np.cumsum(self.weights)])
        # A bin without weight is skipped: its lower end has the rank of its upper end.
        rising = np.concatenate([[True], np.diff(cumulative) > 0])
        return float(np.interp(rank, cumulative[rising], self.edges[rising]))

    @classmethod
    def of_dataset(cls, name: str) -> SizeHistogram:
        """Measure a registered dataset.

        Args:
            name: name of the dataset, whose boxes are upright.

        Returns:
            The histogram of its objects.

        Raises:
            ValueError: if it has no object; the message names it.
        """
        sizes = measure_sizes(DatasetCatalog.get(name))
        if not len(sizes):
            raise ValueError(f"the dataset {name} has no object whose size could be matched")
        return cls.from_sizes(sizes)


def measure_sizes(records: Iterable[dict]) -> np.ndarray:
    """Collect the sizes of the objects of a dataset.

    Args:
        records: dataset dicts of upright boxes; regions to ignore, uncertain objects and crowds are
            left out.

    Returns:
        (N,) float64 pixels, square roots of the boxes' areas.
    """
    boxes = [
        BoxMode.convert(list(annotation["bbox"]), annotation["bbox_mode"], BoxMode.XYWH_ABS)
        for record in records
        for annotation in record.get("annotations", [])
        if not is_ignored(annotation)
    ]
    table = np.array(boxes, dtype=np.float64).reshape(-1, 4)
    return np.sqrt(table[:, 2] * table[:, 3])


class ScaleMatch(T.Augmentation):
    """Resize an image so that the size of its objects follows a target distribution.

    The size of the image's objects is the geometric mean of the sizes of its boxes. With ``source``
    given this is monotone scale match: the size at a rank of the source becomes the size at the
    same rank of the target, so that small stays smaller than large. Without, it is scale match: the
    new size is drawn from the target.

    Boxes that become too small are left to the mapper (``min_side`` of ``BoxDatasetMapper``; the
    paper drops those below 2 px).
    """

    def __init__(
        self,
        target: SizeHistogram | str,
        *,
        source: SizeHistogram | str | None = None,
        scale_limits: tuple[float, float] = (0.1, 1.0),
        default_scale: float | None = 0.25,
        num_draws: int = 5,
    ) -> None:
        """Set the distributions.

        Args:
            target: sizes of the dataset that will be trained on later, or its registered name.
            source: sizes of this dataset, or its name, for monotone scale match.
            scale_limits: least and greatest factor, both excluded when drawing.
            default_scale: factor of images whose draws all lie outside the limits, and of images
                without boxes; None cuts the factor at the limits instead (and leaves images without
                boxes as they are, if 1 lies within the limits).
            num_draws: tries to draw a factor within the limits, >= 1.

        Raises:
            ValueError: for limits that are not 0 < low < high or ``num_draws`` < 1, or a dataset
                without objects.
        """
        super().__init__()
        if not 0 < scale_limits[0] < scale_limits[1] or num_draws < 1:
            raise ValueError(
                f"scale_limits must be 0 < low < high and num_draws >= 1, got {scale_limits} and "
                f"{num_draws}"
            )

        self.target = SizeHistogram.of_dataset(target) if isinstance(target, str) else target
        self.source = SizeHistogram.of_dataset(source) if isinstance(source, str) else source
        self.scale_limits = tuple(scale_limits)
        self.default_scale = default_scale
        self.num_draws = num_draws

    def get_transform(self, image: np.ndarray, boxes: np.ndarray) -> T.Transform:
        """Choose the factor for one image.

        Args:
            image: (H, W, C).
            boxes: (N, 4) x0, y0, x1, y1, pixels.

        Returns:
            a resize of the whole image, at least one pixel large.
        """
        scale = self._choose(boxes)
        height, width = image.shape[:2]
        new = (max(1, round(height * scale)), max(1, round(width * scale)))
        return T.ResizeTransform(height, width, *new)

    def _choose(self, boxes: np.ndarray) -> float:
        low, high = self.scale_limits
        scale = 1.0

        if len(boxes):
            # A box without area must not pull the geometric mean to zero.
            sides = np.clip(boxes[:, 2:] - boxes[:, :2], 1e-6, None)

            size = float(np.exp(0.5 * np.log(sides).sum(axis=1).mean()))
            # A monotone map draws nothing, so a second try would give the same factor.
            for _ in range(self.num_draws if self.source is None else 1):
                scale = self._wanted(size) / size
                if low < scale < high:
                    return scale

        return (
            float(np.clip(scale, low, high)) if self.default_scale is None else self.default_scale
        )

    def _wanted(self, size: float) -> float:
        if self.source is None:
            return self.target.sample(np.random)
        return self.target.quantile(self.source.rank(size))
