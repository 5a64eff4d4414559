"""What follows ``<!-- run -->`` in a page works as it stands, in an empty folder.

The marked blocks of a page are one script of the shell. ``<!-- run: COMMANDS -->`` runs commands
first that the page does not show: they draw data, or shorten what follows. ``MORE_train="..."``
there appends words to every later ``rsd2 train``, and likewise for other verbs and scripts.
``<!-- write PATH -->`` makes a file of the block.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
_RUN = re.compile(
    r"^ *<!-- (?:run(?:: (.*?))?|write (\S+)) -->\n( *)```(\w*)\n(.*?)^ *```",
    re.MULTILINE | re.DOTALL,
)
PAGES = [
    path
    for pattern in ("*.md", "docs/**/*.md", "projects/*/*.md", "rsd2/**/*.md")
    for path in sorted(ROOT.glob(pattern))
    if _RUN.search(path.read_text())
]
# Page -> packages of an extra that its blocks need.
PACKAGES = {
    "README.md": ("rasterio", "pyogrio", "timm"),
    "export.md": ("onnx", "onnxscript", "onnxruntime"),
    "fleet.md": ("rasterio", "pyogrio"),
    "gallery.md": ("rasterio", "pyogrio", "timm"),
    "qgis.md": ("pyogrio", "rasterio"),
    "real_data.md": ("rasterio", "timm"),
    "scenes.md": ("rasterio", "pyogrio"),
}
_PROGRAM = """#!/bin/bash
name=${{1##*/}}
[ "$1" = -m ] && name=$2
name=${{name%.py}}
more=MORE_${{name//[!a-z0-9_]/_}}
set -f  # brackets in the words are not patterns of file names
exec {command} "$@" ${{!more-}}
"""


def script_of(page: str, datasets: Path) -> str:
    """Join the marked blocks of a page; ``/path/to/datasets`` becomes a folder that exists."""
    parts = ["set -euo pipefail"]
    for setup, path, indent, language, body in _RUN.findall(page):
        body = re.sub(rf"^{indent}", "", body, flags=re.MULTILINE)
        parts += [setup] if setup else []
        if path:
            parts.append(f"mkdir -p $(dirname {path})\ncat > {path} <<'PAGE'\n{body}PAGE")
        else:
            parts.append(f"python - <<'PAGE'\n{body}PAGE" if language == "python" else body)
    return "\n".join(parts).replace("/path/to/datasets", str(datasets)) + "\n"


def write_programs(folder: Path) -> Path:
    """Write ``rsd2`` and ``python``, which run the tested ones with the words of ``MORE_...``."""
    folder.mkdir()
    python = f"{sys.executable} -W ignore"
    for name, command in (("python", python), ("rsd2", f"{python} -m rsd2")):
        (folder / name).write_text(_PROGRAM.format(command=command))
        (folder / name).chmod(0o755)
    return folder


def run_script(text: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a script in a folder that has the tools and configs of the repository."""
    for name in ("benchmarks", "configs", "projects", "tests", "tools"):
        (folder / name).symlink_to(ROOT / name)
    # A copy, because benchmarks write their tables into it.
    (folder / "docs").mkdir()
    shutil.copy(ROOT / "docs" / "benchmarks.md", folder / "docs")
    programs = write_programs(folder / "programs")
    environment = {
        **os.environ,
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
    }
    return subprocess.run(
        ["bash", "-c", text], cwd=folder, env=environment, capture_output=True, text=True
    )


needs_bash = pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")


@needs_bash
@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_marked_blocks_run_in_an_empty_folder(path: Path, tmp_path: Path) -> None:
    """Every block of a page finds what the blocks before it have made."""
    for package in PACKAGES.get(path.name, ()):
        pytest.importorskip(package)
    done = run_script(script_of(path.read_text(), tmp_path / "datasets"), tmp_path)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]


@needs_bash
def test_a_failing_command_fails_its_page_and_words_are_appended(tmp_path: Path) -> None:
    page = (
        "<!-- run: export MORE_env=--help -->\n```\nrsd2 env\n```\n\n"
        "1. In a list:\n\n   <!-- run -->\n   ```python\n   print('from a page')\n   ```\n\n"
        "<!-- write a/b.py -->\n```python\nprint('from a file')\n```\n\n"
        "<!-- run -->\n```\npython a/b.py\n```\n\n"
        "<!-- run -->\n```\necho /path/to/datasets\nrsd2 no-verb\necho too far\n```\n"
    )
    done = run_script(script_of(page, tmp_path / "sets"), tmp_path)
    assert done.returncode != 0 and "no-verb" in done.stderr
    assert "usage: rsd2 env" in done.stdout and "too far" not in done.stdout
    assert "from a page\nfrom a file\n" in done.stdout and f"{tmp_path / 'sets'}\n" in done.stdout


def test_every_guide_has_a_command_that_is_run() -> None:
    """The index only links, and the install of the public API is the test of the wheel."""
    guides = {path.name for path in (ROOT / "docs").glob("*.md")} - {"index.md", "public_api.md"}
    assert guides == {path.name for path in PAGES if path.parent.name == "docs"}
