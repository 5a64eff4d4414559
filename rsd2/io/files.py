"""Files and folders: written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path


def make_output_folder(folder: str | Path) -> None:
    """Make a folder and those above it.

    Args:
        folder: may exist already.

    Raises:
        OSError: if it cannot be made; the message names it and asks for another one.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or error
        raise OSError(
            f"the output folder {folder} cannot be made ({reason}); choose another one"
        ) from error


def write_atomically(path: str | Path, content: bytes, writer: int = 0) -> None:
    """Write a file such that it is either whole or not there, even if the process is killed.

    Args:
        path: the file; replaced if it exists.
        content: all of it.
        writer: number of the process, if several may write this very file at once.
    """
    path = Path(path)
    # A fixed name, so that a run after a killed one leaves no debris.
    temporary = path.with_name(f".{path.name}.{writer}.partial")
    temporary.write_bytes(content)
    os.replace(temporary, path)
