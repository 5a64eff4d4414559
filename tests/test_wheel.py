"""The wheel, as somebody uses it who has nothing else: built, checked, installed and run.

Its environment borrows torch, Detectron2 and the other packages from the one of the tests, so that
it is made in seconds; rsd2 itself comes from the wheel.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

import rsd2

SOURCES = ("rsd2", "configs", "projects", "setup.py", "pyproject.toml", "MANIFEST.in", "README.md")
SOURCES += ("LICENSE", "CITATION.cff", "SECURITY.md")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not all(map(importlib.util.find_spec, ("build", "twine"))), reason="needs build and twine"
    ),
]


def run(*command: object, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command that must succeed, without the paths of this process."""
    environment = {**os.environ, "PYTHONNOUSERSITE": "1", "OMP_NUM_THREADS": "1", **variables}
    if not variables:
        environment.pop("PYTHONPATH", None)
    result = subprocess.run(
        list(map(str, command)), cwd=cwd, env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    """Folder with the source distribution and the wheel that was built from it."""
    # A copy, because a build leaves folders beside the sources, and takes what it finds there.
    source = tmp_path_factory.mktemp("source")
    ignore = shutil.ignore_patterns("__pycache__", "*.so", "*.egg-info")
    for name in SOURCES:
        if (repository / name).is_dir():
            shutil.copytree(repository / name, source / name, ignore=ignore)
        else:
            shutil.copy(repository / name, source)

    # Building the kernels is tested elsewhere, and takes longer than all of this.
    paths = os.environ.get("PYTHONPATH", "")
    words = ("-m", "build", "--no-isolation", "--outdir", "dist")
    run(sys.executable, *words, cwd=source, RSD2_BUILD_OPS="0", PYTHONPATH=paths)
    return source / "dist"


@pytest.fixture(scope="module")
def python(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Python of an environment that has rsd2 from the wheel."""
    home = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", home, cwd=home)
    python = home / "bin" / "python"
    (wheel,) = dist.glob("*.whl")
    words = ("install", "-q", "--no-deps", "--no-index", "--disable-pip-version-check", wheel)
    run(sys.executable, "-m", "pip", "--python", python, *words, cwd=home)

    # Only a path: the files in there that install a checkout of rsd2 are not read.
    site = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=home)
    borrowed = dict.fromkeys(map(sysconfig.get_path, ("purelib", "platlib")))
    (Path(site.stdout.strip()) / "borrowed.pth").write_text("\n".join(borrowed))
    return python


def test_metadata_is_complete(dist: Path, repository: Path) -> None:
    files = sorted(dist.iterdir())
    assert [path.suffix for path in files] == [".whl", ".gz"]
    paths = os.environ.get("PYTHONPATH", "")
    run(sys.executable, "-m", "twine", "check", "--strict", *files, cwd=dist, PYTHONPATH=paths)

    with zipfile.ZipFile(files[0]) as wheel:
        names = set(wheel.namelist())
        info = f"rsd2-{rsd2.__version__}.dist-info"
        metadata = Parser().parsestr(wheel.read(f"{info}/METADATA").decode())
    assert metadata["Version"] == rsd2.__version__
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert {"Author", "Summary", "Keywords", "Requires-Python", "Classifier"} <= set(metadata)
    assert {f"{info}/licenses/LICENSE", "rsd2/py.typed"} <= names
    # Everything that can be imported or trained, and nothing of the workshop.
    modules = {p.relative_to(repository).as_posix() for p in (repository / "rsd2").rglob("*.py")}
    assert modules <= names
    configs = {p.relative_to(repository).as_posix() for p in (repository / "configs").rglob("*.py")}
    assert {f"rsd2/{name}" for name in configs} <= names
    assert {name.split("/")[0] for name in names} == {"rsd2", info}


def test_every_verb_project_and_config_is_there(
    python: Path, tmp_path: Path, repository: Path
) -> None:
    configs = [
        path.relative_to(repository).as_posix()
        for pattern in ("configs/*.py", "projects/*/configs/*.py")
        for path in sorted(repository.glob(pattern))
    ]
    code = f"""
import importlib, pathlib, pkgutil, sys
import rsd2, rsd2.projects
from rsd2.commands.main import VERBS
from rsd2.config import load_config

assert pathlib.Path(rsd2.__file__).is_relative_to(sys.prefix), rsd2.__file__
for module, _ in VERBS.values():
    importlib.import_module(module)
for found in pkgutil.walk_packages(rsd2.projects.__path__, "rsd2.projects."):
    if ".configs" not in found.name:
        importlib.import_module(found.name)
for name in {configs!r}:
    load_config(name)
    load_config(name.removeprefix("configs/").removeprefix("projects/"))
print("all there")
"""
    assert len(configs) > 50
    assert run(python, "-c", code, cwd=tmp_path).stdout.endswith("all there\n")


def test_the_command_runs_and_detectron2_is_left_alone(python: Path, tmp_path: Path) -> None:
    command = python.with_name("rsd2")
    assert run(command, "--version", cwd=tmp_path).stdout == f"rsd2 {rsd2.__version__}\n"
    assert "usage: rsd2 VERB" in run(command, "--help", cwd=tmp_path).stdout
    brought = run(command, "install-detectron2", cwd=tmp_path)
    assert "detectron2 works and is left alone" in brought.stdout
    # Detectron2 gets the licence of the wheel where there is no checkout.
    code = "from rsd2.commands.install_detectron2 import apache_license as text; print(text())"
    assert "Apache License" in run(python, "-c", code, cwd=tmp_path).stdout


def test_quick_demo(python: Path, tmp_path: Path) -> None:
    # Without a package index, because a test must not depend on it.
    command = (python.with_name("rsd2"), "demo", "--quick")
    result = run(*command, cwd=tmp_path, PYTHONPATH="", PIP_NO_INDEX="1")
    made = tmp_path / "output" / "quick_demo"
    assert f"report: {made / 'report.html'}" in result.stdout
    assert "features that are learned on generated scenes" in result.stdout
    files = ("finetune/none_100/model_final.pth", "report.html", "maps/harbour_256.gpkg")
    assert all((made / name).stat().st_size > 1000 for name in files)
