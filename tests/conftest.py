"""Fixtures of the whole suite. The default run needs no GPU, no network and no dataset."""

from __future__ import annotations

import importlib.util
import os
import random
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

REPOSITORY = Path(__file__).resolve().parents[1]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests marked ``cuda`` on a machine without a CUDA device."""
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="needs a CUDA device")
    for item in items:
        if item.get_closest_marker("cuda"):
            item.add_marker(skip)


@pytest.fixture(autouse=True)
def seed() -> int:
    """Seed every generator before each test, so that its order in the run does not matter."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    return 0


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def device(request: pytest.FixtureRequest) -> torch.device:
    """Every device that a result must not depend on."""
    return torch.device(request.param)


@pytest.fixture(params=[torch.float32, torch.float64], ids=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    """The floating-point types that every operator and conversion accepts."""
    return request.param


@pytest.fixture(scope="session")
def repository() -> Path:
    """Root folder of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def golden_rule() -> ModuleType:
    """The module ``tests/golden_rule.py``: parameters and features of the golden sets."""
    path = REPOSITORY / "tests" / "golden_rule.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _sample(variable: str, name: str) -> Path:
    folder = Path(os.environ.get(variable) or REPOSITORY.parent / "shared" / "data" / name)
    if not folder.is_dir():
        pytest.skip(f"no sample at {folder}; name its folder in the variable {variable}")
    return folder


@pytest.fixture(scope="session")
def dota_sample() -> Path:
    """Folder with one real DOTA image and its labels; the test is skipped where it is absent."""
    return _sample("RSD2_DOTA_SAMPLE", "dota_sample")


@pytest.fixture(scope="session")
def dota_defective() -> Path:
    """Folder with an image whose labels do not fit it; the test is skipped where it is absent."""
    return _sample("RSD2_DOTA_DEFECTIVE", "dota_defective")
