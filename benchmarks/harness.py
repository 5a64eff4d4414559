"""Time contenders in turn and measure their memory, one row for each pair of ours and a peer.

Time: contenders take turns in one process, so that a disturbance of the machine hits all of them;
medians and minima of the rounds are kept. A contender that has used up its share of time sits out
the remaining rounds, and the row says how often it ran.

Memory: `rsd2.env.peak_memory`, in a separate process for each case.
"""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

import torch
from tqdm import tqdm

from rsd2 import env

SECONDS_PER_CONTENDER = 20.0
PACKAGES = ("torchvision", "numpy", "shapely", "opencv-python-headless")
OURS = "rsd2"


@dataclass(frozen=True)
class Case:
    """One piece of work and its contenders.

    Attributes:
        name: name, unique in its module.
        size: the inputs, in words.
        ours: function that does the work once; it makes its inputs at its first call and keeps
            them.
        peers: name -> the same work by others; empty if none of them runs here.
        note: what a reader of the row must know, such as why there is no peer.
        floor: lower bound of any implementation, in words.
        floor_bytes: least number of bytes to move; the row gets the time that a copy of as
            many takes on this machine. 0: not given.
        dtype: dtype of the inputs.
        device: device of the inputs, ``cpu`` or ``cuda``.
        is_slow: whether ``--quick`` leaves it out.
        compiles: whether first calls compile, which is not time spent.
    """

    name: str
    size: str
    ours: Callable[[], object]
    peers: dict[str, Callable[[], object]] = field(default_factory=dict)
    note: str = ""
    floor: str = ""
    floor_bytes: int = 0
    dtype: str = "float32"
    device: str = "cpu"
    is_slow: bool = False
    compiles: bool = False

    def contenders(self) -> dict[str, Callable[[], object]]:
        """Return ours first, under the name :data:`OURS`, then the peers."""
        return {OURS: self.ours, **self.peers}


def run_cases(
    cases: Iterable[Case],
    rounds: int,
    memory: Callable[[Case], dict[str, float | None]] | None = None,
    finished: Callable[[list[dict[str, Any]]], None] | None = None,
) -> list[dict[str, Any]]:
    """Measure cases, with a progress bar.

    Args:
        cases: cases to measure.
        rounds: number of runs of each contender, >= 1, besides a first call that does not count.
        memory: case -> contender -> peak in MB, None where the system cannot tell; None measures
            nothing.
        finished: function that gets all rows so far after each case.

    Returns:
        A row for each peer of each case, or one without a peer: see :func:`rows_of`.
    """
    rows: list[dict[str, Any]] = []
    bar = tqdm(list(cases), desc="benchmark", unit="case")

    for case in bar:
        bar.set_postfix_str(case.name)
        times = measure_times(case, rounds)
        rows += rows_of(case, times, memory(case) if memory else {})
        if finished:
            finished(rows)

    return rows


def measure_times(case: Case, rounds: int) -> dict[str, list[float]]:
    """Run the contenders of a case in turn.

    Args:
        case: case to run.
        rounds: number of rounds, >= 1.

    Returns:
        Contender -> seconds of each of its runs, at least one.
    """
    contenders = case.contenders()
    times: dict[str, list[float]] = {name: [] for name in contenders}
    spent = dict.fromkeys(contenders, 0.0)

    # The first call makes inputs and fills caches: it counts as time spent, not as a measurement.
    for name, work in contenders.items():
        first = _seconds(work, case.device)
        spent[name] += 0.0 if case.compiles else first

    for _ in range(rounds):
        for name, work in contenders.items():
            # Every contender runs at least once, however slow it is.
            if times[name] and spent[name] > SECONDS_PER_CONTENDER:
                continue
            times[name].append(_seconds(work, case.device))
            spent[name] += times[name][-1]

    return times


def _seconds(work: Callable[[], object], device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    # A GPU still works after the call has returned.
    if device == "cuda":
        torch.cuda.synchronize()

    return time.perf_counter() - start


def peak_memory(case: Case) -> dict[str, float | None]:
    """Measure how much memory each contender adds at its peak, its result included.

    Args:
        case: case whose contenders are called, twice each.

    Returns:
        Contender -> MB (10^6 bytes), or None where the system cannot tell.
    """
    return {name: env.peak_memory(work, case.device) for name, work in case.contenders().items()}


def rows_of(
    case: Case, times: dict[str, list[float]], peaks: dict[str, float | None]
) -> list[dict[str, Any]]:
    """Turn the measurements of a case into rows.

    Args:
        case: the measured case.
        times: contender -> seconds of its runs.
        peaks: contender -> peak memory in MB or None.

    Returns:
        Rows with the keys ``case size dtype device threads ours_ms ours_min_ms ours_runs peer
        peer_ms peer_min_ms peer_runs ratio ratio_of_minima ours_mb peer_mb floor floor_ms note
        machine commit versions time``. A ratio is the peer's time over ours. Of a row without a
        peer, ``peer`` and its numbers are None.
    """
    # Not at the top: it imports Detectron2, which the processes that measure memory do without.
    from rsd2.engine.defaults import provenance

    origin = provenance("", 0, torch.device(case.device))
    common = {
        "case": case.name,
        "size": case.size,
        "dtype": case.dtype,
        "device": case.device,
        "threads": torch.get_num_threads(),
        **_figures("ours", times[OURS]),
        "ours_mb": peaks.get(OURS),
    }

    about = {
        "floor": case.floor,
        "floor_ms": None if not case.floor_bytes else _floor_ms(case),
        "note": case.note,
        "machine": env.processor_name(case.device),
        "commit": origin["commit"],
        "versions": {**origin["versions"], **_versions()},
        "time": origin["time"],
    }

    rows = []
    for peer in case.peers or {None: None}:
        theirs = _figures("peer", times.get(peer))
        ratios = {"ratio": None, "ratio_of_minima": None}
        if peer is not None:
            # Medians tell what a user waits for; minima are less disturbed by the machine.
            ratios["ratio"] = theirs["peer_ms"] / common["ours_ms"]
            ratios["ratio_of_minima"] = theirs["peer_min_ms"] / common["ours_min_ms"]
        peak = {"peer_mb": peaks.get(peer)}
        rows.append({**common, "peer": peer, **theirs, **ratios, **peak, **about})

    return rows


def _figures(who: str, times: list[float] | None) -> dict[str, Any]:
    if not times:
        return {f"{who}_ms": None, f"{who}_min_ms": None, f"{who}_runs": 0}
    return {
        f"{who}_ms": statistics.median(times) * 1e3,
        f"{who}_min_ms": min(times) * 1e3,
        f"{who}_runs": len(times),
    }


def _floor_ms(case: Case) -> float:
    return case.floor_bytes / copy_rate(case.device) * 1e3


@functools.cache
def copy_rate(device: str) -> float:
    """Measure the bytes that a copy of 256 MB reads and writes per second, the best of six.

    Args:
        device: device of the copy, ``cpu`` or ``cuda``.
    """
    # Far larger than any cache, so that the copy measures memory.
    source = torch.ones(1 << 26, device=device)
    target = torch.empty_like(source)
    best = min(_seconds(lambda: target.copy_(source), device) for _ in range(6))
    return 2 * source.numel() * source.element_size() / best


@functools.cache
def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            # A missing package is the peer that could not run.
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
