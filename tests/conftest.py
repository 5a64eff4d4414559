"""Fixtures of the whole suite. The default run needs no GPU, no network and no dataset."""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import random
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

REPOSITORY = Path(__file__).resolve().parents[1]


class AblationRow(NamedTuple):
    """A row of an ablation table: a question that overrides of a config ask."""

    name: str
    config: Path
    overrides: list[str]


def read_ablation_rows() -> list[AblationRow]:
    """Read the tables of the projects' READMEs whose head names the config to override."""
    rows = []
    for readme in sorted(REPOSITORY.glob("projects/*/README.md")):
        for base, body in re.findall(
            r"^\| name \| overrides of `(\S+)` \|.*\n((?:\|.*\n)+)", readme.read_text(), re.M
        ):
            for name, overrides in re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", body, re.M):
                config = readme.parent / "configs" / base
                rows.append(AblationRow(name, config, overrides.split()))
    return rows


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that takes ``ablation_row`` once for every row."""
    if "ablation_row" in metafunc.fixturenames:
        rows = read_ablation_rows()
        metafunc.parametrize("ablation_row", rows, ids=[row.name for row in rows])


@pytest.fixture(scope="session")
def ablation_rows() -> dict[str, AblationRow]:
    """All rows by name."""
    rows = {row.name: row for row in read_ablation_rows()}
    assert len(rows) == len(read_ablation_rows()) >= 20, "rows are found, each of its own name"
    return rows


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
def load_module() -> Callable[[str], ModuleType]:
    """Function that imports a file by its path from the root: a script, or a helper of tests."""

    def load(path: str) -> ModuleType:
        file = REPOSITORY / path
        spec = importlib.util.spec_from_file_location(f"loaded_{file.stem}", file)
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # where dataclasses look for their module
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture(scope="session")
def golden_rule(load_module: Callable[[str], ModuleType]) -> ModuleType:
    """The module ``tests/golden_rule.py``: parameters and features of the golden sets."""
    return load_module("tests/golden_rule.py")


@pytest.fixture
def register() -> Iterator[Callable[..., str]]:
    """Function that registers dicts under a name and forgets them after the test."""
    from detectron2.data import DatasetCatalog, MetadataCatalog

    names = []

    def add(name: str, dicts: list, classes: Sequence[str] = ("person",), **metadata: Any) -> str:
        DatasetCatalog.register(name, lambda: dicts)
        MetadataCatalog.get(name).set(thing_classes=list(classes), **metadata)
        names.append(name)
        return name

    yield add
    for name in names:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


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


def _run_process(rank: int, folder: Path, work: Callable[[int], Any]) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2
    )
    torch.save(work(rank), folder / f"rank{rank}.pth")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


@pytest.fixture
def run_two_processes(tmp_path: Path) -> Callable[[Callable[[int], Any]], list[Any]]:
    """Function that calls ``work(rank)`` in two processes of one group and returns both results."""
    if not torch.distributed.is_available():
        pytest.skip("torch without torch.distributed")

    def run(work: Callable[[int], Any]) -> list[Any]:
        # forked, like the workers of a data loader: a fresh interpreter would load for seconds
        context = multiprocessing.get_context("fork")
        processes = [
            context.Process(target=_run_process, args=(rank, tmp_path, work)) for rank in (0, 1)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join(timeout=120)
        hanging = [process for process in processes if process.is_alive()]
        for process in hanging:
            process.kill()
        assert not hanging, "the processes wait for each other: they make different reductions"
        assert [process.exitcode for process in processes] == [0, 0]
        return [torch.load(tmp_path / f"rank{rank}.pth") for rank in (0, 1)]

    return run
