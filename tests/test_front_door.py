"""``import rsd2``: light, and what it offers is what its home has."""

from __future__ import annotations

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


@pytest.mark.parametrize("name", rsd2.__all__)
def test_names_come_from_their_homes(name: str) -> None:
    assert getattr(rsd2, name) is getattr(import_module(rsd2._HOMES[name]), name)
    assert name in dir(rsd2)


def test_unknown_name() -> None:
    with pytest.raises(AttributeError, match="'rsd2' has no attribute 'load_detektor'"):
        rsd2.load_detektor  # noqa: B018
