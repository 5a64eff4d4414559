"""Figures that are written whole or not at all."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest
from matplotlib.figure import Figure

from rsd2.io.figures import save_figure


def test_figure_replaces_the_file_or_leaves_it(tmp_path: Path) -> None:
    path = tmp_path / "curves.png"
    path.write_text("old")
    figure = Figure(figsize=(2, 1))
    broken = figure.subplots().text(0.5, 0.5, "$\\frac{1$")  # no formula
    with pytest.raises(ValueError, match="frac"):
        save_figure(figure, path)
    assert path.read_text() == "old"
    broken.set_text("1")
    save_figure(figure, path, dpi=50)
    assert cv2.imread(str(path)).shape == (50, 100, 3)
    assert [file.name for file in tmp_path.iterdir()] == ["curves.png"]
