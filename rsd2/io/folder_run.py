"""Runs that fill a folder part by part: shared among processes, resumed after any interruption.

A run is a list of parts: images to cut, scenes to draw, bands of rows to search for objects. Each
part ends in a marker, a file that is written last and whole (`rsd2.io.files`), so that it stands
for the part. Whatever lacks its marker is made again. Nothing else is remembered, and therefore
``kill -9`` at any moment, other numbers of workers and other shards lead to the same bytes.

A writer of folders takes these steps:

1. `claim_folder` refuses a folder of other parameters, or with files of another origin. Then the
   writer records its parameters there.
2. `FolderRun` takes every n-th part of the list and finds out which of them are missing.
3. `FolderRun.make` makes the missing parts, in worker processes if wanted, and shows a bar.
4. `FolderRun.is_finished` tells whether the other processes are done, too. The process that finds
   it true merges the parts.

Where several runs share one folder, a hash of everything that decides the content names the parts.
The bands of a scene, for example, are searched like this; ``search`` writes the file of a band::

    key = make_run_id({"model": digest, "window": 1024, "overlap": 256}, [scene_digest])
    bands = [Band(row, folder / key / f"rows-{row:06d}.npz") for row in range(0, height, 4096)]

    run = FolderRun(bands, lambda band: band.path.is_file(), shard_from_environment())
    failed = run.make(search, title="scene", unit="band", survivable=(OSError, ValueError))

    for band, reason in failed:
        print(f"{band.path.name} is missing: {reason}. Run the same command to try it again.")
    if run.is_finished():
        merge(bands)

A part that fails with one of the ``survivable`` errors does not stop the others. It has no marker,
so the next run makes it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

from tqdm import tqdm

from .program import print_error
from .worker_pool import run_in_processes

Part = TypeVar("Part")


class FolderTakenError(FileExistsError, ValueError):
    """The output folder belongs to a run of other parameters, or holds files of another origin."""


def make_run_id(settings: Mapping[str, Any], parts: Sequence[str]) -> str:
    """Name a run by everything that decides its result.

    Args:
        settings: plain values that JSON can hold.
        parts: everything else that decides, in a fixed order: names of images, ids of other runs.

    Returns:
        16 hexadecimal digits.
    """
    text = json.dumps([settings, list(parts)], sort_keys=True)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]


def check_shard(shard: tuple[int, int]) -> None:
    """Validate the share of a process.

    Args:
        shard: (rank, number of processes).

    Raises:
        ValueError: if the rank is not below the number of processes.
    """
    if not 0 <= shard[0] < shard[1]:
        raise ValueError(
            f"a shard is (rank, number of processes) with 0 <= rank < number, got {shard}"
        )


def _to_shard(rank: str, number: str) -> tuple[int, int] | None:
    """Return (rank, number) from their texts, or None if they name no shard."""
    if rank.isdecimal() and number.isdecimal() and int(rank) < int(number):
        return int(rank), int(number)
    return None


def parse_shard(text: str) -> tuple[int, int]:
    """Read 'index/number', like 0/4, from a command line.

    Args:
        text: argument of the command line.

    Returns:
        (index, number of shards).

    Raises:
        argparse.ArgumentTypeError: if the text is no such pair.
    """
    index, _, number = text.partition("/")

    shard = _to_shard(index, number)
    if shard is None:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not INDEX/NUMBER with INDEX from 0, like 0/4"
        )
    return shard


def shard_from_environment(environment: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """Read the share of this process from ``RANK`` and ``WORLD_SIZE``, as any launcher sets them.

    Args:
        environment: variables of the process.

    Returns:
        (rank, number of processes); (0, 1) if neither variable is set.

    Raises:
        ValueError: if one is missing, empty or no whole number, or the rank is not below the
            number of processes: parts of the run would be left out silently.
    """
    given = [environment.get(name) for name in ("RANK", "WORLD_SIZE")]
    if given == [None, None]:
        return 0, 1

    # A script that copies the variables of a job array has empty ones where no array was started.
    shard = _to_shard(*(text or "" for text in given))
    if shard is None:
        rank, number = ("not set" if text is None else repr(text) for text in given)
        raise ValueError(
            f"RANK is {rank} and WORLD_SIZE is {number}, but they must be whole numbers with "
            "0 <= RANK < WORLD_SIZE; set both or unset both (in a Slurm array started with "
            "--array=0-3: RANK=$SLURM_ARRAY_TASK_ID WORLD_SIZE=$SLURM_ARRAY_TASK_COUNT)"
        )
    return shard


def refuse_other_parameters(
    folder: Path, holds: str, there: Mapping[str, Any], wanted: Mapping[str, Any]
) -> None:
    """Raise an error if a folder was begun with other parameters.

    Args:
        folder: output folder, for the message.
        holds: name of the contents, in the plural.
        there: parameters of the folder, as JSON holds them.
        wanted: parameters of this run.

    Raises:
        FolderTakenError: if any differ; the message lists them.
    """
    # The folder's parameters went through JSON, which turns tuples into lists.
    wanted = json.loads(json.dumps(wanted))

    # A key that only one side has counts as a difference, too: options come and go with versions.
    details = ", ".join(
        f"{key}: {there.get(key)} there, {wanted.get(key)} asked for"
        for key in sorted({*wanted, *there})
        if wanted.get(key) != there.get(key)
    )
    if details:
        raise FolderTakenError(
            f"{folder} holds {holds} of other parameters ({details}); choose another folder, "
            "delete this one, or ask for its parameters"
        )


def claim_folder(
    folder: Path,
    record: Path,
    parameters: Mapping[str, Any],
    *,
    holds: str,
    contents: Sequence[Path] = (),
    section: str | None = None,
) -> None:
    """Check that an output folder is free, or was begun by a run of the same parameters.

    Args:
        folder: output folder; nothing is written to it.
        record: JSON file in which the run that began the folder wrote its parameters.
        parameters: parameters of this run.
        holds: name of the run's products, in the plural, for the messages.
        contents: sub-folders that must be empty where there is no record.
        section: key under which the record has the parameters; None if they are all of it.

    Raises:
        FolderTakenError: if the record has other parameters or cannot be read, or if files are
            there without a record.
    """
    # A run writes its record first, so files without one are not from a run.
    if not record.is_file():
        strangers = (path for sub in contents if sub.is_dir() for path in sub.iterdir())
        if (stranger := next(strangers, None)) is not None:
            raise FolderTakenError(
                f"{stranger.parent} holds files, for example {stranger.name}, but {record} is "
                f"missing, so they may not be {holds}; choose an empty folder"
            )
        return

    try:
        found = json.loads(record.read_text(encoding="utf-8"))
        there = dict(found if section is None else found[section])
    except (ValueError, KeyError, TypeError) as error:
        raise FolderTakenError(
            f"{record} cannot be read as a record of {holds} ({error!r}); delete {folder} or "
            "choose another folder"
        ) from error

    refuse_other_parameters(folder, holds, there, parameters)


class FolderRun(Generic[Part]):
    """The share of one process in a run.

    Attributes:
        mine: parts of this process.
        missing: parts of this process that were not done when the run was built.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        is_done: Callable[[Part], bool],
        shard: tuple[int, int] = (0, 1),
    ) -> None:
        """Find the missing parts.

        Args:
            parts: all parts, in the same order in every process.
            is_done: tells whether the marker of a part exists.
            shard: (rank, number of processes); a process makes every number-th part.

        Raises:
            ValueError: if there is no such shard.
        """
        check_shard(shard)
        self._parts, self._is_done = parts, is_done
        self.mine = parts[shard[0] :: shard[1]]
        self.missing = [part for part in self.mine if not is_done(part)]

    def make(
        self,
        work: Callable[[Part], object],
        *,
        title: str,
        unit: str,
        size: Callable[[Part], int] = lambda part: 1,
        num_workers: int = 0,
        start_worker: Callable[[], None] | None = None,
        progress: bool = True,
        survivable: tuple[type[Exception], ...] = (),
    ) -> list[tuple[Part, str]]:
        """Make the missing parts.

        Args:
            work: makes a part, its marker last; must be picklable if there are workers.
            title: text before the progress bar.
            unit: name of the unit that the bar counts.
            size: gives the number of units of a part.
            num_workers: processes; 0 works in this one. The files do not depend on it.
            start_worker: called once in each new process.
            progress: show the bar.
            survivable: errors of a part that do not stop the others.

        Returns:
            Parts that failed, each with the reason.

        Raises:
            RuntimeError: if a worker process dies; other errors of the work are raised unchanged.
        """
        attempt = partial(_attempt, work, survivable)
        # A generator: the parts are made while the bar takes their results below.
        reasons = run_in_processes(attempt, self.missing, num_workers, start_worker)
        total = sum(map(size, self.mine))
        done = total - sum(map(size, self.missing))

        failed = []
        with tqdm(total=total, initial=done, desc=title, unit=unit, disable=not progress) as bar:
            for part, reason in zip(self.missing, reasons, strict=True):
                if reason is not None:
                    failed.append((part, reason))
                bar.update(size(part))
        return failed

    def is_finished(self) -> bool:
        """Return whether all parts are done, those of other processes too."""
        return all(map(self._is_done, self._parts))


def _attempt(
    work: Callable[[Part], object], survivable: tuple[type[Exception], ...], part: Part
) -> str | None:
    """Make a part; return the reason if it failed with an error that may be survived."""
    try:
        work(part)
    except survivable as error:
        return f"{type(error).__name__}: {error}"
    return None


def run_command(work: Callable[[], None]) -> int:
    """Run a resumable command and print errors that a user can cause as one line.

    Args:
        work: function that does the command's work.

    Returns:
        0 if done, 2 after an error, 130 if interrupted (128 + SIGINT, as shells report it).
    """
    try:
        work()
    except (ValueError, OSError, RuntimeError, ImportError) as error:
        print_error(error)
        return 2
    except KeyboardInterrupt:
        print("interrupted; run the same command to continue.", file=sys.stderr)
        return 130
    return 0
