"""``import rsd2``: light, and what it offers is what its home has."""

from __future__ import annotations

import resource
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import rsd2


def test_import_leaves_torch_alone(repository: Path) -> None:
    code = "import sys, rsd2, rsd2.commands.main; print({'torch', 'numpy'} & set(sys.modules))"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=repository, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == "set()\n"


@pytest.mark.parametrize(
    ("words", "seconds"), [(["-c", "import rsd2"], 0.3), (["-m", "rsd2", "--help"], 0.5)]
)
def test_the_door_opens_at_once(words: list[str], seconds: float, repository: Path) -> None:
    def processor_time() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *words], cwd=repository, capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    # Not the time on the clock, which is that of the neighbours too.
    assert min(processor_time() for _ in range(3)) < seconds


@pytest.mark.parametrize("name", rsd2.__all__)
def test_names_come_from_their_homes(name: str) -> None:
    assert getattr(rsd2, name) is getattr(import_module(rsd2._HOMES[name]), name)
    assert name in dir(rsd2)


def test_unknown_name() -> None:
    with pytest.raises(AttributeError, match="'rsd2' has no attribute 'load_detektor'"):
        rsd2.load_detektor  # noqa: B018
