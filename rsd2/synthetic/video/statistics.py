"""Statistics of synthetic videos beside those measured on real ones.

The real ones are of RsCarData's training videos, 512 x 512 pixels. Rows that were measured there
are starred; the others are estimates.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from .config import DENSITY, IMAGE_DEVIATION, IMAGE_MEAN, LARGE_VEHICLES, MAX_DRIFT, SPEED_MODES

TOLERANCE = 0.2
"""Starred rows of a large set of usual videos lie this close to the real value, relatively."""

_SHORTEST_TRACK = 15  # frames; HiEUM's filter of labels has it too
_LAG = 10  # frames; over one frame the rounding of the labels would count as motion
_BOX_QUANTILES = {0.05: 4.0, 0.25: 4.9, 0.5: 5.66, 0.75: 7.0, 0.95: 9.8}
_VIDEO_QUANTILES = {0.1: 4.5, 0.5: 5.5, 0.75: 7.75, 0.9: 8.5}
_LARGE_SHARE = (0.03, 0.05)
_BETWEEN_CLUSTERS = 0.8  # pixels per frame, of slow scenes


class StatisticRow(NamedTuple):
    """A quantity of synthetic and real videos.

    Args:
        name: with unit.
        real: least and greatest real value, equal if there is one; NaN if unknown.
        measured: of the synthetic videos; NaN if they do not show it.
        starred: the real value is a measured one.
    """

    name: str
    real: tuple[float, float]
    measured: float
    starred: bool

    @property
    def deviation(self) -> float:
        """Relative distance to the real range; 0 inside it, NaN if one of them is unknown."""
        low, high = self.real
        if math.isnan(self.measured) or math.isnan(low):
            return math.nan
        outside = max(low - self.measured, self.measured - high, 0.0)
        return outside / (low if self.measured < low else high)


class _Tracks(NamedTuple):
    """Of each track: number of labels, median size, net displacement, straightness, speed."""

    frames: np.ndarray
    size: np.ndarray
    net: np.ndarray
    straight: np.ndarray
    speed: np.ndarray


def measure_videos(records: Iterable[dict]) -> list[StatisticRow]:
    """Measure videos.

    Args:
        records: of the videos, as ``read_video_records`` and ``make_record`` give them.

    Returns:
        The rows of the table.

    Raises:
        ValueError: if there is no video.
    """
    records = list(records)
    if not records:
        raise ValueError("there is no video to measure; draw some first")
    boxes = [np.array([row for rows in r["frames"] for row in rows]) for r in records]
    sizes = [np.sqrt(b[:, 3] * b[:, 4]) if len(b) else np.zeros(0) for b in boxes]
    tracks = [_measure_tracks(record["frames"]) for record in records]
    rows = [*_image_rows(records), *_density_rows(records), *_size_rows(sizes, tracks)]
    rows += _speed_rows(records, tracks)
    rows += _track_rows(tracks)
    drifts = [math.hypot(*record["drift"]) for record in records]
    rows.append(_row("drift of the ground, greatest, px/frame", MAX_DRIFT, max(drifts)))
    contrast = np.concatenate([np.asarray(r["contrast"], dtype=float) for r in records])
    rows += [
        _row("share of dark vehicles", (0.10, 0.15), _mean(contrast < -10), False),
        _row("share of dim vehicles", (0.10, 0.15), _mean(np.abs(contrast) <= 10), False),
    ]
    return rows


def format_statistics(rows: Iterable[StatisticRow]) -> str:
    """Write the rows as a table.

    Args:
        rows: of ``measure_videos``.

    Returns:
        a table of several lines; ``*`` marks starred rows, ``!`` those of them that deviate more
        than ``TOLERANCE``.
    """
    lines = [f"{'quantity':46s} {'real':>13s} {'synthetic':>10s} {'deviation':>10s}"]
    for row in rows:
        low, high = row.real
        real = "" if math.isnan(low) else f"{low:.4g}" if low == high else f"{low:.4g}-{high:.4g}"
        known = not math.isnan(row.deviation)
        away = f"{row.deviation:10.0%}" if known else f"{'':10s}"
        flag = "!" if row.starred and known and row.deviation > TOLERANCE else ""
        name = f"{row.name}{' *' if row.starred else ''}"
        lines.append(f"{name:46s} {real:>13s} {row.measured:10.4g} {away}{flag}")
    return "\n".join(lines)


def _row(
    name: str, real: float | tuple[float, float], measured: float, starred: bool = True
) -> StatisticRow:
    pair = real if isinstance(real, tuple) else (real, real)
    return StatisticRow(name, pair, float(measured), starred)


def _image_rows(records: list[dict]) -> list[StatisticRow]:
    moments = np.array([record["image"] for record in records if "image" in record]).reshape(-1, 2)
    mean = _mean(moments[:, 0])
    deviation = math.sqrt(_mean(moments[:, 1] ** 2 + moments[:, 0] ** 2) - mean**2)
    return [
        _row("mean of the pixels, grey levels", IMAGE_MEAN, mean),
        _row("deviation of the pixels, grey levels", IMAGE_DEVIATION, deviation),
    ]


def _density_rows(records: list[dict]) -> list[StatisticRow]:
    """Labelled vehicles in 512 x 512 pixels: of each video its mean."""
    counts = [
        np.mean([len(rows) for rows in record["frames"]]) * 512**2 / math.prod(record["size"])
        for record in records
    ]
    rows = [_row("vehicles in 512 x 512 px, mean", 25.3, np.mean(counts))]
    for share in (0.1, 0.25, 0.5, 0.75, 0.9):
        name = f"vehicles in 512 x 512 px, {share:.0%} of videos"
        rows.append(_row(name, float(DENSITY.at(share)), np.quantile(counts, share)))
    return rows


def _size_rows(sizes: list[np.ndarray], tracks: list[_Tracks]) -> list[StatisticRow]:
    every = np.concatenate(sizes)
    medians = np.array([np.median(size) for size in sizes if len(size)])
    rows = [
        _row(f"size, {share:.0%} of boxes, px", value, _quantile(every, share))
        for share, value in _BOX_QUANTILES.items()
    ]
    rows += [
        _row(f"median size, {share:.0%} of videos, px", value, _quantile(medians, share))
        for share, value in _VIDEO_QUANTILES.items()
    ]
    large = [
        (track.size >= LARGE_VEHICLES[0]) & (track.size <= LARGE_VEHICLES[1])
        for track, size in zip(tracks, sizes)
        if len(size) and np.median(size) < 10  # elsewhere every car is that large
    ]
    share = _mean(np.concatenate([np.zeros(0), *large]))
    name = f"share of vehicles of {LARGE_VEHICLES[0]:.0f}-{LARGE_VEHICLES[1]:.0f} px"
    return [*rows, _row(name, _LARGE_SHARE, share)]


def _speed_rows(records: list[dict], tracks: list[_Tracks]) -> list[StatisticRow]:
    speeds: dict[str, np.ndarray] = {}
    modes = [record["mode"] for record in records]
    for mode in SPEED_MODES:
        mine = [track.speed for track, name in zip(tracks, modes) if name == mode]
        values = np.concatenate([np.zeros(0), *mine])
        speeds[mode] = values[np.isfinite(values)]
    rows = [
        _row(f"share of {name} scenes", mode.share, modes.count(name) / len(modes))
        for name, mode in SPEED_MODES.items()
    ]
    rows += [
        _row(f"speed in {name} scenes, px/frame", SPEED_MODES[name].means[0], _mean(speeds[name]))
        for name in ("fast", "mixed", "urban")
    ]
    for mean in SPEED_MODES["slow"].means:
        near = (speeds["slow"] > _BETWEEN_CLUSTERS) == (mean > _BETWEEN_CLUSTERS)
        rows.append(_row(f"speed in slow scenes near {mean}", mean, _mean(speeds["slow"][near])))
    straight = {
        name: np.concatenate(
            [np.zeros(0), *(t.straight for t, mode in zip(tracks, modes) if mode == name)]
        )
        for name in ("fast", "urban")
    }
    rows += [
        _row(f"net by path in {name} scenes", real, _quantile(straight[name], 0.5), False)
        for name, real in (("fast", (0.97, 0.99)), ("urban", (0.6, 0.95)))
    ]
    return rows


def _track_rows(tracks: list[_Tracks]) -> list[StatisticRow]:
    """Rows that depend on how long the videos are; the real ones have 392 frames on average."""
    net = np.concatenate([track.net / track.size for track in tracks])
    frames = np.concatenate([track.frames for track in tracks])
    return [
        _row("labels of a track, mean", 184, _mean(frames), False),
        _row("net displacement, median, vehicle lengths", 24.9, _quantile(net, 0.5), False),
        _row("share of tracks below 0.5 lengths", 0.016, _mean(net < 0.5), False),
    ]


def _measure_tracks(frames: list[list[list[float]]]) -> _Tracks:
    rows = np.array(
        [(row[0], number, *row[1:]) for number, group in enumerate(frames) for row in group],
        dtype=float,
    ).reshape(-1, 6)
    rows = rows[np.lexsort((rows[:, 1], rows[:, 0]))]
    starts = np.flatnonzero(np.diff(rows[:, 0], prepend=-1.0))
    measured = [_measure_track(part) for part in np.split(rows, starts[1:]) if len(part)]
    return _Tracks(*np.array(measured, dtype=float).reshape(-1, 5).T)


def _measure_track(rows: np.ndarray) -> tuple[float, ...]:
    centers, moments = rows[:, 2:4] + rows[:, 4:6] / 2, rows[:, 1]
    size = float(np.median(np.sqrt(rows[:, 4] * rows[:, 5])))
    net = float(np.hypot(*(centers[-1] - centers[0])))
    path = np.hypot(*np.diff(centers[:: _LAG // 2], axis=0).T).sum()
    lag = min(_LAG, len(rows) - 1)
    if len(rows) < _SHORTEST_TRACK:
        return len(rows), size, net, math.nan, math.nan
    steps = np.hypot(*(centers[lag:] - centers[:-lag]).T) / (moments[lag:] - moments[:-lag])
    kept = centers[:: _LAG // 2]
    straight = float(np.hypot(*(kept[-1] - kept[0]))) / max(path, 1e-6)
    return len(rows), size, net, straight, float(steps.mean())


def _mean(values: np.ndarray) -> float:
    return float(np.mean(values)) if len(values) else math.nan


def _quantile(values: np.ndarray, share: float) -> float:
    values = np.asarray(values, dtype=float)
    values = values[np.isfinite(values)]
    return float(np.quantile(values, share)) if len(values) else math.nan
