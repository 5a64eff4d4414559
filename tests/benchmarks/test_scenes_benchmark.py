"""The benchmark of scenes: both sides see the same windows."""

from __future__ import annotations

import pytest

for _library in ("rasterio", "pyogrio", "pyproj"):
    pytest.importorskip(_library)

from benchmarks import scenes  # noqa: E402
from rsd2.inference.image_detector import ImageDetector  # noqa: E402


def test_both_contenders_show_the_model_all_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[tuple[int, ...]] = []
    detect = ImageDetector.__call__

    def count(self: ImageDetector, images: list) -> list:
        shown.extend(image.shape for image in images)
        return detect(self, images)

    monkeypatch.setattr(ImageDetector, "__call__", count)
    for case in scenes.cases(side=192, window=128):
        for work in case.contenders().values():
            shown.clear()
            assert work() > 0
            assert shown == [(128, 128, 3)] * 4
