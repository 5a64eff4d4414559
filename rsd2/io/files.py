"""Files and folders that are written completely or not at all."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def make_output_folder(folder: str | Path) -> None:
    """Make a folder and those above it.

    Args:
        folder: folder to make; it may exist already.

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


@contextmanager
def replaced_file(
    path: str | Path, writer: int = 0, *, keep_suffix: bool = False
) -> Iterator[Path]:
    """Provide a temporary file that replaces another one when the block ends.

    Args:
        path: path of the final file; it is replaced if it exists, and left as it is if the block
            raises.
        writer: number of the process, if several may write this very file at once.
        keep_suffix: let the temporary name end as ``path`` does, for libraries that choose the
            format of a file by its name.

    Yields:
        Path of the temporary file, which lies beside ``path``; the file is gone after the block.

    Raises:
        OSError: if the file cannot be moved into place.
    """
    path = Path(path)
    # A fixed name, so that a run after a killed one leaves no debris. It ends in "partial", so that
    # no search for finished files by their suffix finds it.
    suffix = path.suffix if keep_suffix else ""
    temporary = path.with_name(f".{path.name}.{writer}.partial{suffix}")

    try:
        yield temporary
        # Atomic on one file system, which is why the temporary file lies beside its target.
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(path: str | Path, content: bytes | str, writer: int = 0) -> None:
    """Write a file that is either whole or not there, even if the process is killed.

    Args:
        path: path of the file, which is replaced if it exists.
        content: whole content of the file; text is written as UTF-8.
        writer: number of the process, if several may write this very file at once.

    Raises:
        OSError: if the file cannot be written; an existing one stays unchanged.
    """
    with replaced_file(path, writer) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def file_digest(path: str | Path) -> str:
    """Hash a file's content.

    Args:
        path: path of the file.

    Returns:
        Its SHA-256, 64 hexadecimal digits.

    Raises:
        OSError: the file cannot be read.
    """
    digest = hashlib.sha256()
    # In blocks, because checkpoints have hundreds of megabytes.
    with Path(path).open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
