"""What a study reports: files that its jobs left, courses of trainings, rows with their origin."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rsd2.io.files import write_atomically


class StudyReportError(RuntimeError):
    """A file of a job is missing or unreadable; the message names it."""


def read_records(run: Path) -> list[dict[str, Any]]:
    """Read what a training logged.

    Args:
        run: output folder of ``tools/lazyconfig_train_net.py``.

    Returns:
        the lines of its ``metrics.json``; a resumed training repeats iterations.

    Raises:
        StudyReportError: the file is missing or holds nothing.
    """
    path = run / "metrics.json"
    if not path.is_file():
        raise StudyReportError(f"{path} is missing; run the study again")
    records = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            continue  # a killed training leaves half a line, and writes it again when resumed
    if not records:
        raise StudyReportError(f"{path} holds nothing; was anything trained?")
    return records


def read_course(records: Sequence[Mapping[str, Any]], key: str) -> list[tuple[int, float]]:
    """Take the course of a logged value.

    Args:
        records: of :func:`read_records`.
        key: of the value.

    Returns:
        (steps done, value) in their order, the later one of repeated iterations; values that are
        not finite are left out.
    """
    points = {
        int(record["iteration"]) + 1: float(record[key])
        for record in records
        if record.get(key) is not None and math.isfinite(record[key])
    }
    return sorted(points.items())


def change_over_last_fifth(course: Sequence[tuple[int, float]]) -> float | None:
    """How much a line fitted to the last fifth of a course rises from its start to its end.

    Args:
        course: (steps, value).

    Returns:
        in units of the value; None with fewer than three points there.
    """
    if not course:
        return None
    # what is evaluated after the last step is logged as if one more had been done
    start = 0.8 * (course[-1][0] - 1)
    last = np.array([point for point in course if point[0] >= start], dtype=np.float64)
    if len(last) < 3:
        return None
    slope = np.polyfit(last[:, 0], last[:, 1], 1)[0]
    return float(slope * (last[-1, 0] - last[0, 0]))


def read_results(run: Path) -> dict[str, Any]:
    """Read the last evaluation of a training with its provenance.

    Args:
        run: its output folder.

    Returns:
        content of ``results.json``.

    Raises:
        StudyReportError: the file is missing or broken.
    """
    path = run / "results.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise StudyReportError(f"{path} cannot be read ({error}); run the study again") from error


def describe_origins(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say what made the rows of a table: a study that is continued may use another commit.

    Args:
        rows: with ``arm``, ``commit``, ``seed``, ``config``, ``hardware`` and ``versions``.

    Returns:
        An item of a Markdown list for each origin, in the order of the rows, with the arms that
        it made.
    """
    arms: dict[str, list[str]] = {}
    for row in rows:
        origin = (
            f"commit {row['commit']}, seed {row['seed']}, torch {row['versions']['torch']}, config "
            f"{row['config']}, hardware {json.dumps(row['hardware'])}"
        )
        arms.setdefault(origin, []).append(row["arm"])
    return [f"- {', '.join(dict.fromkeys(names))}: {origin}" for origin, names in arms.items()]


def write_rows(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write rows as JSON lines, complete or not at all.

    Args:
        rows: what JSON can hold; an undefined number (nan) is written as null.
        path: of the file.
    """
    text = "".join(json.dumps(_without_nan(row), allow_nan=False) + "\n" for row in rows)
    write_atomically(path, text.encode())


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nan(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
