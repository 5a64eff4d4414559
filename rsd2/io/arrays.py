"""Reads NPZ files of arrays without pickles, with one error for every kind of damage."""

from __future__ import annotations

import lzma
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from tokenize import TokenError

import numpy as np

# What NumPy and the ZIP reader below it raise for truncated, foreign and altered files: TypeError
# for a file of one array, KeyError for an array that is not there, RuntimeError for bytes that
# pretend encryption or a compression that Python lacks, OverflowError and TokenError for a header.
_DAMAGE = (
    *(OSError, EOFError, ValueError, TypeError, KeyError, RuntimeError, OverflowError, TokenError),
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError),
)


class ArrayFileError(ValueError):
    """An NPZ file is damaged, of another kind, or lacks an array."""


def read_arrays(path: str | Path, names: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """Read arrays of an NPZ file.

    Args:
        path: path of the file.
        names: names of the arrays; None reads all.

    Returns:
        Name -> array.

    Raises:
        FileNotFoundError: if there is no such file.
        ArrayFileError: if it cannot be read; the message has file and reason.
    """
    path = Path(path)  # outside the block, which would blame the file for a caller's mistake
    # Pickled arrays run code when they are read, so a file that holds any counts as damaged.
    try:
        with np.load(path, allow_pickle=False) as content:
            return {name: content[name] for name in names or content.files}
    except FileNotFoundError:  # an OSError, too, but of a wrong path and not of damage
        raise
    except _DAMAGE as error:
        raise ArrayFileError(f"{path} is damaged or of another kind ({error})") from error
