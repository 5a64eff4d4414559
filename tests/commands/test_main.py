"""The command ``rsd2``: its help, its verbs, and what it says of those that do not exist."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import rsd2
from rsd2.commands.main import VERBS, main


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_has_a_line_for_each_verb(flag: str, capsys: pytest.CaptureFixture) -> None:
    assert main([flag]) == 0
    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    for verb, (_, what) in VERBS.items():
        assert [verb, what] in lines


def test_version_and_an_empty_command_line(capsys: pytest.CaptureFixture) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"rsd2 {rsd2.__version__}\n"
    assert main([]) == 2
    assert "usage: rsd2 VERB" in capsys.readouterr().err


def test_every_verb_has_a_module() -> None:
    assert all(find_spec(module) for module, _ in VERBS.values())


@pytest.mark.parametrize(
    ("verb", "hint"),
    [
        ("trian", "did you mean train?"),
        ("draw_video", "did you mean draw-video?"),
        ("xyz", "rsd2 --help lists the verbs"),
    ],
)
def test_unknown_verb(verb: str, hint: str, capsys: pytest.CaptureFixture) -> None:
    assert main([verb, "--help"]) == 2
    assert capsys.readouterr().err == f"rsd2: error: there is no verb {verb!r}; {hint}\n"


@pytest.mark.parametrize("verb", ["split", "env"])
def test_parsers_name_the_verb(verb: str, capsys: pytest.CaptureFixture) -> None:
    before = sys.argv
    with pytest.raises(SystemExit) as stop:
        main([verb, "--help"])
    assert stop.value.code == 0
    assert f"usage: rsd2 {verb} " in capsys.readouterr().out
    assert sys.argv is before


@pytest.mark.parametrize(
    ("verb", "arguments"),
    [
        ("predict", ["--config-file", "absent.py", "--input", ".", "--output", "out"]),
        ("report", ["--predictions", "absent", "--output", "out"]),
        ("train", ["--config-file", "absent.py"]),
        ("convert-labels", ["--to", "dota", "--input", "absent", "--output", "out"]),
        ("card", ["--table", "absent.md"]),
    ],
)
def test_errors_name_the_program_as_it_was_called(
    verb: str, arguments: list[str], capsys: pytest.CaptureFixture
) -> None:
    assert main([verb, *arguments]) in (1, 2)
    assert capsys.readouterr().err.startswith(f"rsd2 {verb}: error: ")


def test_a_verb_runs_and_its_code_is_returned(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr("rsd2.env.collect", lambda: [("rsd2", "here")])
    assert main(["env"]) == 0
    assert capsys.readouterr().out == "rsd2  here\n"
    monkeypatch.setattr("rsd2.commands.make_split.main", lambda argv: len(argv) + len(sys.argv))
    assert main(["split", "a", "b"]) == 5


def test_python_m_rsd2_prints_help_without_torch(repository: Path) -> None:
    code = (
        "import runpy, sys; sys.modules['torch'] = None; sys.argv = ['rsd2', '--help']; "
        "runpy.run_module('rsd2', run_name='__main__')"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=repository, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("usage: rsd2 VERB")


def test_a_verb_names_the_command_that_brings_detectron2(repository: Path) -> None:
    code = (
        "import sys; sys.modules['detectron2'] = None; "
        "from rsd2.commands.main import main; sys.exit(main(['train', '--help']))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=repository, capture_output=True, text=True
    )
    assert result.returncode == 2
    assert result.stderr == "rsd2 train needs Detectron2: run rsd2 install-detectron2\n"
