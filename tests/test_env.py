"""``python -m rsd2.env``: true with and without Detectron2, a compiler or a GPU."""

from __future__ import annotations

import ast
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rsd2 import env

BLOCK_DETECTRON2 = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "detectron2":
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Blocker())
"""


def run_python(code: str, repository: Path, **variables: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(repository), **variables}
    return subprocess.run(
        [sys.executable, "-c", code],
        env=environment, cwd=repository, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip


def test_report_names_everything_once() -> None:
    names = [name for name, _ in env.collect()]
    expected = {"rsd2", "python", "torch", "torchvision", "detectron2", "numpy", "opencv", "nvcc"}
    assert expected <= set(names)
    assert len(names) == len(set(names))
    assert {f"rsd2 {operator}" for operator in env.OPERATORS} <= set(names)


def test_report_works_without_detectron2(repository: Path) -> None:
    code = BLOCK_DETECTRON2 + "from rsd2.env import main; main()"
    lines = run_python(code, repository).splitlines()
    (detectron2,) = [line for line in lines if line.startswith("detectron2 ")]
    assert "absent" in detectron2
    assert "rsd2 install-detectron2" in detectron2


def test_report_works_without_compilers(repository: Path, tmp_path: Path) -> None:
    output = run_python("from rsd2.env import main; main()", repository, PATH=str(tmp_path))
    assert output.count("not found (not needed)") == 2


def test_import_touches_no_room(repository: Path) -> None:
    code = "import sys, rsd2.env; print([m for m in sys.modules if m.startswith('rsd2.')])"
    assert run_python(code, repository).strip() == "['rsd2.env']"
    assert (
        run_python("import sys, rsd2.env; print('torch' in sys.modules)", repository) == "False\n"
    )


@pytest.mark.parametrize(
    ("version", "extension", "expected"),
    [
        ("0.6+python", False, "carried Python part"),
        ("0.6", True, "own build with its compiled extension"),
        ("0.6+python", True, "own build with its compiled extension"),
        ("0.6", False, "own copy, no compiled extension"),
    ],
)
def test_origin_of_detectron2(
    monkeypatch: pytest.MonkeyPatch, version: str, extension: bool, expected: str
) -> None:
    found = {"detectron2": True, "detectron2._C": extension}
    monkeypatch.setattr(env, "has_module", found.__getitem__)
    monkeypatch.setattr(env, "distribution_version", lambda *names: version)
    monkeypatch.setattr(env.importlib, "import_module", lambda name: pytest)
    assert env.describe_detectron2().startswith(f"{version}; {expected}")


def test_broken_detectron2_is_named_not_fatal(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        raise RuntimeError("built for another torch")

    monkeypatch.setattr(env, "has_module", lambda name: name == "detectron2")
    monkeypatch.setattr(env.importlib, "import_module", fail)
    assert "RuntimeError: built for another torch" in env.describe_detectron2()


def test_distribution_version() -> None:
    assert env.distribution_version("no-such-distribution") is None
    version = env.distribution_version("no-such-distribution", "numpy")
    assert version == f"{env.distribution_version('numpy')} (numpy)"


def test_programs_that_are_absent_or_fail_give_nothing() -> None:
    assert env.first_line_of("no-such-program", "--version") is None
    assert env.first_line_of(sys.executable, "-c", "raise SystemExit(1)") is None
    line = env.first_line_of(sys.executable, "-c", "print('a\\nb 2')", containing="2")
    assert line is not None
    assert line.startswith("b 2 (")


def test_speed_note_names_exactly_what_is_slow() -> None:
    assert "every operator is compiled" in env.speed_note([])
    note = env.speed_note(["ms_deform_attn"])
    assert "nms_rotated" not in note
    assert "ms_deform_attn" in note
    assert "C++ compiler" in note


def test_operators_are_told_by_device(repository: Path) -> None:
    code = "from rsd2.env import describe_operators; print(dict(describe_operators()))"
    report = ast.literal_eval(run_python(code, repository, RSD2_OPS="reference"))
    assert "RSD2_OPS=reference" in report["rsd2 kernels"]
    for operator in env.OPERATORS:
        assert report[f"rsd2 {operator}"] == "CPU: PyTorch reference, CUDA: PyTorch reference"
        assert operator in report["note"]
    report = dict(env.describe_operators())
    extension = importlib.import_module("rsd2.ops.extension")
    for operator, registered in env.OPERATORS.items():
        state = "compiled" if extension.is_compiled(registered, "CPU") else "PyTorch reference"
        assert report[f"rsd2 {operator}"].startswith(f"CPU: {state}, CUDA: ")
