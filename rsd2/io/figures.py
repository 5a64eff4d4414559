"""Matplotlib's figures as files."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from .files import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def save_figure(figure: Figure, path: Path, dpi: int = 110) -> None:
    """Write a figure as PNG, which is whole or not there.

    Args:
        figure: made without pyplot, so that no screen is needed and nobody has to close it.
        path: of the file; replaced if it exists.
        dpi: dots of the file per inch of the figure.
    """
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=dpi)
    write_atomically(path, stream.getvalue())
