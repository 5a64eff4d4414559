"""Messages of commands on stderr, which begin with the program's name as those of argparse do."""

from __future__ import annotations

import sys
from pathlib import Path


def program_name() -> str:
    """Return the name by which the user called this program, as argparse takes it.

    Returns:
        ``rsd2 VERB`` after :func:`rsd2.commands.main.main`, else the file name of the script.
    """
    return Path(sys.argv[0]).name


def print_error(problem: Exception | str) -> None:
    """Print on stderr why the program failed.

    Args:
        problem: the reason, and what the user can do.
    """
    print(f"{program_name()}: error: {problem}", file=sys.stderr)
