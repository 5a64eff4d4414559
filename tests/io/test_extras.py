"""Optional libraries: a folder that happens to have the name of one is not that library."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from rsd2.engine import RunError
from rsd2.engine.trackers import MLflowWriter, WandbWriter
from rsd2.geo.libraries import geo_library
from rsd2.io.ray_pool import import_ray
from rsd2.modeling.backbones.timm_backbone import TimmBackbone


@pytest.mark.parametrize(
    ("name", "use", "extra"),
    [
        ("ray", import_ray, "fleet"),
        ("mlflow", lambda: MLflowWriter("out"), "trackers"),
        ("wandb", lambda: WandbWriter("out"), "trackers"),
        ("rasterio", lambda: geo_library("rasterio"), "geo"),
        ("timm", lambda: TimmBackbone("resnet18"), "timm"),
    ],
)
def test_a_folder_of_that_name_is_not_the_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, use: Callable, extra: str
) -> None:
    (tmp_path / name).mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    # Set before it is deleted, so that the folder's module does not outlive the test.
    for module in {name, *(loaded for loaded in sys.modules if loaded.startswith(f"{name}."))}:
        monkeypatch.setitem(sys.modules, module, ModuleType(module))
        monkeypatch.delitem(sys.modules, module)
    with pytest.raises((ImportError, RunError), match=rf"pip install 'rsd2\[{extra}\]'"):
        use()
