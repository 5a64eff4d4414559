"""The build of the operators: what switches it off is said, and what fails is an error."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

WITHOUT_TORCH = "import sys; sys.modules['torch'] = None; "


def run_setup(
    repository: Path, *arguments: str, code: str = "", **variables: str
) -> subprocess.CompletedProcess:
    """Run setup.py as pip would, after some code."""
    code += f"import runpy, sys; sys.argv = {['setup.py', *arguments]!r}; "
    code += "runpy.run_path('setup.py', run_name='__main__')"
    environment = {**os.environ, "RSD2_BUILD_OPS": "", "FORCE_CUDA": "", **variables}
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=repository, env=environment, capture_output=True, text=True,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("reason", "code", "variables"),
    [
        ("RSD2_BUILD_OPS=0", "", {"RSD2_BUILD_OPS": "0"}),
        ("no C++ compiler", "", {"PATH": "", "CXX": ""}),
        ("no C++ compiler", "", {"CXX": "no-such-compiler"}),
        ("torch cannot be imported", WITHOUT_TORCH, {}),
    ],
)
def test_python_part_installs_without_the_operators(
    repository: Path, reason: str, code: str, variables: dict[str, str]
) -> None:
    result = run_setup(repository, "--quiet", "build_ext", code=code, **variables)
    assert result.returncode == 0, result.stderr
    assert f"rsd2: {reason}" in result.stderr


def test_a_compiler_that_fails_is_an_error_with_its_log(repository: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    compiler = tmp_path / "broken-compiler"
    compiler.write_text(
        "#!/bin/sh\n"
        'case "$1" in -v | --version | -dump*) echo 12.2.0; exit 0 ;; esac\n'
        "echo 'kernels do not compile today' >&2\n"
        "exit 1\n"
    )
    compiler.chmod(0o755)
    folders = [f"--build-temp={tmp_path}/temp", f"--build-lib={tmp_path}/lib"]
    result = run_setup(repository, "build_ext", *folders, CXX=str(compiler), MAX_JOBS="1")
    assert result.returncode != 0
    assert "kernels do not compile today" in result.stdout + result.stderr
    assert not list(tmp_path.rglob("*.so"))


def test_sources_travel_with_a_source_distribution(repository: Path) -> None:
    lines = (repository / "MANIFEST.in").read_text("utf-8").splitlines()
    assert "recursive-include rsd2/ops/csrc *" in lines
