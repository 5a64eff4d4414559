"""Writes Matplotlib's figures to files."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from .files import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def save_figure(figure: Figure, path: Path, dpi: int = 110) -> None:
    """Write a figure as a PNG file, completely or not at all.

    Args:
        figure: figure made without pyplot, so that no screen is needed and nobody has to close it.
        path: path of the file, which is replaced if it exists.
        dpi: dots of the file for each inch of the figure.
    """
    # Drawn in memory first: matplotlib would leave half a file if it failed.
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=dpi)
    write_atomically(path, stream.getvalue())
