"""What the offline commands of this project have in common."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable


def parse_shard(text: str) -> tuple[int, int]:
    """Read 'index/number', like 0/4.

    Args:
        text: of the command line.

    Returns:
        (index, number of shards).

    Raises:
        argparse.ArgumentTypeError: if it is no such pair.
    """
    index, slash, number = text.partition("/")
    if not (slash and index.isdecimal() and number.isdecimal() and int(index) < int(number)):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not INDEX/NUMBER with INDEX from 0, like 0/4"
        )
    return int(index), int(number)


def torchrun_shard() -> tuple[int, int]:
    """Index of this process and number of processes, of torchrun; (0, 1) without it."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def run_guarded(tool: str, work: Callable[[], None]) -> int:
    """Run a command, and turn errors that a user can cause into one line.

    Args:
        tool: name of the command.
        work: what it does.

    Returns:
        0 if done, 2 after an error, 130 if interrupted.
    """
    try:
        work()
    except (ValueError, OSError, RuntimeError, ImportError) as error:
        print(f"{tool}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{tool}: interrupted; run the same command to continue.", file=sys.stderr)
        return 130
    return 0
