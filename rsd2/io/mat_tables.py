"""Tables of numbers in MATLAB's files, with one error for every kind of damage."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from scipy.io import loadmat, savemat
from scipy.io.matlab import matfile_version

from .files import write_atomically


class MatTableError(ValueError):
    """A file holds no such table.

    Attributes:
        is_new_version: whether it is a file of MATLAB 7.3, which is HDF5 inside.
    """

    def __init__(self, message: str, is_new_version: bool = False) -> None:
        super().__init__(message)
        self.is_new_version = is_new_version


def read_mat_table(path: str | Path, key: str, columns: int) -> np.ndarray:
    """Read a variable that is a table of numbers, whatever structures and cells it is wrapped in.

    Args:
        path: path of the file.
        key: name of the variable.
        columns: smallest number of columns, >= 1.

    Returns:
        (N, C) float64; numbers may be NaN or infinite.

    Raises:
        FileNotFoundError: there is no such file.
        MatTableError: the file cannot be read, or has no such table.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        # The version is 2 in files of MATLAB 7.3, which loadmat refuses.
        is_new_version = matfile_version(path, appendmat=False)[0] == 2
        table = None if is_new_version else _unwrap(loadmat(path)[key], columns)
    except Exception as error:  # SciPy's compiled reader lets through whatever broken bytes cause
        raise MatTableError(f"no table {key} in it: {error!r}") from error

    if table is None:
        raise MatTableError("a file of MATLAB 7.3, which is HDF5 inside", is_new_version=True)
    return table


def _unwrap(content: np.ndarray, columns: int) -> np.ndarray:
    """Return the table inside a variable."""
    # MATLAB wraps a table in structures and cells, as many as its writer used.
    while content.dtype == object or content.dtype.names:
        content = content[content.dtype.names[0]] if content.dtype.names else content.flat[0]
    table = np.asarray(content, dtype=np.float64)

    # An empty table has lost its number of columns.
    table = table.reshape(0, columns) if table.size == 0 else table
    if table.ndim != 2 or table.shape[1] < columns:
        raise ValueError(f"its shape is {table.shape}")
    return table


def write_mat_table(path: str | Path, key: str, table: np.ndarray) -> None:
    """Write a table as the only variable of a MATLAB file, whole or not at all.

    Args:
        path: path of the file, which is replaced if it exists.
        key: name of the variable.
        table: (N, C) float64.

    Raises:
        OSError: the file cannot be written.
    """
    buffer = io.BytesIO()
    savemat(buffer, {key: table})
    write_atomically(path, buffer.getvalue())
