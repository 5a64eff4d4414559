"""Radiometry: which bands a model sees, and how their numbers become 0 to 255.

The rule is a part of the model: training and prediction must apply the same one. It is a plain
object that configs build, that checkpoints and results record, and that needs no GDAL.

Shapes: B bands that the model sees, h, w size of a window.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache
from typing import Any, Protocol

import numpy as np

from rsd2.io.padding import PAD_COLOR

SCALINGS = ("uint8", "range", "percentile")

_OTHER_FILL = 114.0
"""Padding of models whose bands are not red, green and blue: about the mean of PAD_COLOR."""


class RadiometryError(ValueError):
    """Numbers that have no fixed meaning as brightness; the message names a rule to set."""


class Measurable(Protocol):
    """The part of a raster that :meth:`Radiometry.measure` uses."""

    name: str

    @property
    def dtypes(self) -> Sequence[str]:
        """Return the type of each band."""

    def band_numbers(self, bands: Sequence[int | str] | None) -> tuple[int, ...]:
        """Return the numbers, from 1, of bands given by number or description."""

    def read_sample(
        self, bands: Sequence[int], nodata: float | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return values (h, w, B) spread over the scene, and which of the pixels hold data."""


@dataclass(frozen=True)
class Radiometry:
    """Rule that turns numbers of a raster into the channels of a model.

    Attributes:
        bands: numbers, from 1, or descriptions of the bands, in the order of the model's channels;
            None takes red, green and blue, or a single band for all three.
        scaling: ``"uint8"`` keeps 8-bit numbers; ``"range"`` maps ``low`` to 0 and ``high`` to 255;
            ``"percentile"`` does the same with two percentiles of each scene, measured once.
        low: lower end of ``"range"``, in numbers of the raster, one for each band or one for all.
        high: upper end in the same numbers, above ``low``.
        percentiles: the two percentiles of ``"percentile"``, both in [0, 100].
        gamma: the share of 255 is raised to 1 / ``gamma``, > 0; 1 changes nothing, more brightens.
        nodata: number that means "no data here", if the raster does not say it itself.
        precision: ``"uint8"`` rounds the result, ``"float32"`` does not.
        fill: 0 to 255, one for each band or one for all: value of pixels without data; None takes
            the colour of the padding for red, green and blue.
    """

    bands: tuple[int | str, ...] | None = None
    scaling: str = "uint8"
    low: tuple[float, ...] | None = None
    high: tuple[float, ...] | None = None
    percentiles: tuple[float, float] = (2.0, 98.0)
    gamma: float = 1.0
    nodata: float | None = None
    precision: str = "uint8"
    fill: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        """Convert the values of configs and JSON files, and validate them."""
        # Lists come from YAML and JSON; tuples are what can be hashed.
        if self.bands is not None:
            bands = (self.bands,) if isinstance(self.bands, int | str) else tuple(self.bands)
            object.__setattr__(self, "bands", bands)
        for name in ("low", "high", "fill", "percentiles"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, tuple(np.ravel(value).astype(float).tolist()))

        if self.scaling not in SCALINGS:
            raise ValueError(f"scaling must be one of {', '.join(SCALINGS)}, got {self.scaling!r}")
        if self.precision not in ("uint8", "float32"):
            raise ValueError(f"precision must be uint8 or float32, got {self.precision!r}")
        if not self.gamma > 0:
            raise ValueError(f"gamma must be positive, got {self.gamma}")
        if self.bands is not None and not self.bands:
            raise ValueError("bands must name at least one band; None chooses red, green and blue")
        self._check_range()

    def _check_range(self) -> None:
        low_percent, high_percent = (*self.percentiles, None, None)[:2]
        if len(self.percentiles) != 2 or not 0 <= low_percent < high_percent <= 100:
            raise ValueError(
                f"percentiles must be two numbers, 0 <= low < high <= 100, got {self.percentiles}"
            )

        if self.scaling != "range":
            return

        if self.low is None or self.high is None:
            raise ValueError(
                "scaling 'range' needs low and high: the numbers that become 0 and 255"
            )

        # Ends may be one number for all bands, or one for each; both may differ in that.
        count = 1 if self.bands is None else len(self.bands)
        pairs = max(len(self.low), len(self.high))
        for name, value in (("low", self.low), ("high", self.high)):
            if len(value) not in {1, pairs} or (self.bands is not None and pairs not in {1, count}):
                raise ValueError(f"{name} must be one number or one for each band, got {value}")
        if not all(np.broadcast_to(self.low, pairs) < np.broadcast_to(self.high, pairs)):
            raise ValueError(f"low must be below high, got low {self.low} and high {self.high}")

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Radiometry:
        """Build the rule from plain values, as :meth:`to_dict` gives them.

        Args:
            values: some or all attributes by name.

        Returns:
            The rule.

        Raises:
            ValueError: an unknown name or a value out of range.
        """
        known = [field.name for field in fields(cls)]
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise ValueError(f"radiometry has no {unknown[0]!r}; it has {', '.join(known)}")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for a config, a checkpoint or a JSON file.

        Returns:
            All attributes by name; tuples as lists.
        """
        values = asdict(self)
        return {key: list(v) if isinstance(v, tuple) else v for key, v in values.items()}

    @property
    def is_fixed(self) -> bool:
        """Tell whether the rule can be applied without measuring a scene."""
        return self.scaling != "percentile"

    def measure(self, raster: Measurable) -> Radiometry:
        """Fix the rule for one scene, once: every window of it is then treated alike.

        Args:
            raster: the scene; with ``"percentile"`` a sample of it is read.

        Returns:
            A rule with band numbers and without percentiles to measure; to be recorded with the
            results. The attribute ``percentiles`` still says where a measured range comes from.

        Raises:
            RadiometryError: the numbers are not of 8 bits and there is no rule for them, or the
                sample holds no data.
            ValueError: the raster lacks a band, or the range has numbers for other bands.
        """
        bands = raster.band_numbers(self.bands)
        if self.scaling == "uint8":
            kinds = sorted({raster.dtypes[band - 1] for band in bands})
            if kinds != ["uint8"]:
                raise RadiometryError(self._ask_for_rule(raster, bands, kinds))
            return replace(self, bands=bands)

        if self.scaling == "range":
            counts = [len(ends or ()) for ends in (self.low, self.high)]
            if max(counts) not in {1, len(bands)}:
                raise ValueError(
                    f"{raster.name}: low and high hold {counts[0]} and {counts[1]} numbers, but "
                    f"{len(bands)} bands are read; give one number for each"
                )

            return replace(self, bands=bands)

        low, high = self._measure_range(raster, bands)

        # A constant band stays dark instead of dividing by zero.
        high = np.where(high > low, high, low + 1.0)
        return replace(
            self, bands=bands, scaling="range", low=tuple(low.tolist()), high=tuple(high.tolist())
        )

    def _measure_range(
        self, raster: Measurable, bands: tuple[int, ...]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Measure two percentiles (B,) of a sample, over pixels with data."""
        values, valid = raster.read_sample(bands, self.nodata)
        values = values[valid].astype(np.float64)
        values = values[np.isfinite(values).all(axis=1)]
        if not len(values):
            raise RadiometryError(
                f"{raster.name} holds no data where it was sampled, so its range cannot be "
                "measured; set scaling to 'range' with low and high, or check its nodata value"
            )

        low, high = np.percentile(values, self.percentiles, axis=0)
        return low, high

    def _ask_for_rule(self, raster: Measurable, bands: tuple[int, ...], kinds: list[str]) -> str:
        try:
            low, high = self._measure_range(raster, bands)
            shown = [f"{a:.6g} to {b:.6g}" for a, b in zip(low, high)]
            found = ", ".join(dict.fromkeys(shown))
            measured = (
                f"{self.percentiles[0]:g} to {self.percentiles[1]:g} % of them lie in {found}"
            )
        except RadiometryError:
            measured = "its sample holds no data"

        return (
            f"{raster.name} holds {' and '.join(kinds)} numbers ({measured}), which are no 8-bit "
            "colours; set the radiometry's scaling to 'percentile', or to 'range' with low and "
            "high, the same for training and prediction"
        )

    def apply(self, values: np.ndarray, valid: np.ndarray | None = None) -> np.ndarray:
        """Turn numbers of a raster into channels.

        Args:
            values: (h, w, B) numbers of the bands, any real type.
            valid: (h, w) bool, True where there are data; None means everywhere.

        Returns:
            (h, w, B) in 0 to 255, of type ``precision``; ``fill`` where there are no data or a
            number is not finite.

        Raises:
            RadiometryError: percentiles have not been measured yet, or ``"uint8"`` meets other
                numbers.
            ValueError: the range has numbers for another number of bands.
        """
        if not self.is_fixed:
            raise RadiometryError("percentiles are measured once for a scene: call measure() first")
        if self.scaling == "uint8" and values.dtype != np.uint8:
            raise RadiometryError(
                f"scaling 'uint8' meets {values.dtype} numbers; set it to 'range' or 'percentile'"
            )

        num_bands = values.shape[-1]
        if values.dtype.kind == "f":
            finite = np.isfinite(values).all(axis=-1)
            valid = finite if valid is None else valid & finite
            values = np.where(finite[..., None], values, 0)

        if self.scaling == "uint8" and self.gamma == 1 and self.precision == "uint8":
            channels = np.array(values)  # the usual case: nothing to compute
        elif values.dtype in (np.uint8, np.uint16):
            # So few numbers exist that each is scaled once, not once for every pixel.
            tables = _tables(self, values.dtype.name, num_bands)
            channels = np.empty(values.shape, dtype=self.precision)
            for band, table in enumerate(tables):
                channels[..., band] = table[values[..., band]]
        else:
            channels = self._scale(values)

        if valid is not None and not valid.all():
            channels[~valid] = self.fill_values(num_bands)
        return channels

    def _scale(self, values: np.ndarray) -> np.ndarray:
        """Scale values (h, w, B) to 0 to 255."""
        shares = values.astype(np.float32)
        if self.scaling == "uint8":
            shares /= np.float32(255)
        else:
            low, high = np.asarray(self.low, np.float64), np.asarray(self.high, np.float64)

            # Subtracting first keeps the digits of large numbers with a small range.
            shares = ((values - low) / (high - low)).astype(np.float32)

        np.clip(shares, 0, 1, out=shares)
        if self.gamma != 1:
            np.power(shares, np.float32(1 / self.gamma), out=shares)

        shares *= np.float32(255)
        return np.rint(shares).astype(np.uint8) if self.precision == "uint8" else shares

    def fill_values(self, num_bands: int) -> np.ndarray:
        """Return the values of pixels without data.

        Args:
            num_bands: number of bands, B.

        Returns:
            (B,) values of type ``precision``.

        Raises:
            ValueError: ``fill`` has numbers for another number of bands.
        """
        fill = self.fill
        if fill is None:
            fill = PAD_COLOR if num_bands == 3 else (_OTHER_FILL,)
        if len(fill) not in {1, num_bands}:
            raise ValueError(f"fill holds {len(fill)} numbers, but there are {num_bands} bands")
        return np.broadcast_to(np.asarray(fill), num_bands).astype(self.precision)


@lru_cache(maxsize=8)
def _tables(radiometry: Radiometry, dtype: str, num_bands: int) -> np.ndarray:
    """Return scaled numbers (B, 256 or 65536) for every number of an unsigned type."""
    numbers = np.arange(np.iinfo(dtype).max + 1)[:, None]
    return np.ascontiguousarray(radiometry._scale(np.repeat(numbers, num_bands, axis=1)).T)
