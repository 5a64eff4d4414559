"""Every command in the documents and in the demo names a tool, flags and files that exist.

Of the Markdown files the blocks of Python are read too.
"""

from __future__ import annotations

import ast
import importlib
import re
import shlex
import shutil
import subprocess
import textwrap
from pathlib import Path

import pytest

from rsd2.commands.main import VERBS, main
from rsd2.config import load_config
from rsd2.projects.mutdet.study import PRESETS, study_jobs

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("configs", "docs", "projects", "rsd2", "tools")
SOURCES = (
    *sorted(ROOT.glob("*.md")),
    *sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.md")),
    *sorted((ROOT / "tools").glob("*.py")),
    *sorted((ROOT / "tools").glob("*.sh")),
    *sorted(ROOT.glob("projects/*/*/*.py")),
)
_TOOL = re.compile(r"(?:projects/\w+/)?tools/")
_VERB = re.compile(r"\s*(?:# +)?(?:\w+=\S+ +)*(?:srun +)?rsd2 +([a-z].*)")
_BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
_COMMAND = re.compile(r'\s*(?:# +)?(?:\w+=\S+ +)*(?:bash|python|torchrun|"\$\w+") +(.*)')
PAGES = [path for path in SOURCES if path.suffix == ".md"]
TOOLS = sorted(path.name for path in (ROOT / "tools").iterdir() if path.suffix in (".py", ".sh"))


def commands(text: str) -> list[tuple[str, list[str]]]:
    """(tool, its arguments) of each command line that runs one; of a project, by its path.

    A verb counts in blocks of code alone, because a sentence may begin with the program's name.
    """
    lines = text.replace("\\\\\n", " ").replace("\\\n", " ").splitlines()
    found, is_code = [], False
    for line in lines:
        is_code ^= line.lstrip().startswith("```")
        match, verb = _COMMAND.match(line), _VERB.match(line)
        if verb and is_code:
            words = shlex.split(verb[1], comments=True)
            found.append((f"rsd2 {words[0]}", words[1:]))
        elif match and "tools/" in match[1]:
            words = shlex.split(match[1], comments=True)
            start = [i for i, word in enumerate(words) if _TOOL.match(word)]
            if start:
                found.append((words[start[0]].removeprefix("tools/"), words[start[0] + 1 :]))
        elif match and match[1].startswith("-m benchmarks"):
            words = shlex.split(match[1], comments=True)
            found.append(("benchmarks", words[2:]))
    return found


def path_of(tool: str) -> Path:
    if tool.startswith("rsd2 "):
        module = VERBS[tool.removeprefix("rsd2 ")][0]  # a KeyError names a verb that is not there
        return ROOT.joinpath(*module.split(".")).with_suffix(".py")
    if tool == "benchmarks":
        return ROOT / "benchmarks" / "__main__.py"
    return ROOT / tool if tool.startswith("projects/") else ROOT / "tools" / tool


@pytest.fixture(scope="module")
def help_of(load_module):
    """Function that returns what a tool prints with --help."""
    texts = {}

    def get(name: str, capsys: pytest.CaptureFixture) -> str:
        if name not in texts:
            arguments = ["--help"]
            if name.startswith("rsd2 "):
                run, arguments = main, [name.removeprefix("rsd2 "), "--help"]
            elif name == "benchmarks":
                run = importlib.import_module("benchmarks.__main__").main
            else:
                tool = load_module(path_of(name).relative_to(ROOT).as_posix())
                run = getattr(tool, "parse_arguments", getattr(tool, "main", None))
            with pytest.raises(SystemExit) as stop:
                run(arguments)
            assert stop.value.code == 0
            texts[name] = capsys.readouterr().out
        return texts[name]

    return get


def test_reader_of_commands():
    text = "#   X=1 bash tools/a.sh  # why\npython tools/b.py --c \\\n d \\\\\n --e=1\n`tools/c.py`"
    assert commands(text) == [("a.sh", []), ("b.py", ["--c", "d", "--e=1"])]
    assert commands("python projects/X/tools/d.py --e") == [("projects/X/tools/d.py", ["--e"])]
    assert commands("python -m benchmarks ops --quick") == [("benchmarks", ["ops", "--quick"])]
    verb = "rsd2 is here\n```\nA=1 srun rsd2 scene --a b\n# rsd2 env\nrsd2/ops\n```\n"
    assert commands(verb) == [("rsd2 scene", ["--a", "b"]), ("rsd2 env", [])]
    assert commands("for x in 1; do\n  python tools/a.py '$x'") == [("a.py", ["$x"])]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_commands_exist(path, help_of, capsys):
    for tool, words in commands(path.read_text()):
        assert path_of(tool).is_file(), tool
        if path_of(tool).suffix != ".py":
            continue
        known = set(re.findall(r"--[a-z][\w-]*", help_of(tool, capsys)))
        flags = {word.split("=")[0] for word in words if re.match(r"--[a-z]", word)}
        assert flags <= known, f"{tool} has no {flags - known}"
        if tool.startswith("rsd2 "):
            module = importlib.import_module(VERBS[tool.removeprefix("rsd2 ")][0])
            if hasattr(module, "get_parser"):
                module.get_parser().parse_args(words)
        files = [w for w in words if re.match(r"(?:configs|projects)/.*\.py$", w)]
        for config in files:
            assert (ROOT / config).is_file(), config
            keys = [w for w in words if re.match(r"(?:train|model|dataloader|optimizer)\.\S+=", w)]
            load_config(ROOT / config, keys)


def test_every_tool_has_a_paragraph_and_a_command():
    text = (ROOT / "tools" / "README.md").read_text()
    assert sorted(re.findall(r"^\*\*`(\S+)`\*\*", text, re.MULTILINE)) == TOOLS
    named = {name for name, _ in commands(text) if "/" not in name and " " not in name}
    assert named == {*TOOLS, "benchmarks"}


def test_every_verb_has_a_script():
    scripts = "".join(path.read_text() for path in (ROOT / "tools").glob("*.py"))
    modules = {module for module, _ in VERBS.values() if module.startswith("rsd2.commands.")}
    assert set(re.findall(r"^from (\S+) import main$", scripts, re.MULTILINE)) == modules


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_python_in_documents_imports_what_exists(path):
    for _, language, body in _BLOCK.findall(path.read_text()):
        if language != "python":
            continue
        for node in ast.walk(ast.parse(textwrap.dedent(body))):
            if isinstance(node, ast.ImportFrom) and node.module.startswith("rsd2"):
                module = importlib.import_module(node.module)
                assert all(hasattr(module, name.name) for name in node.names), ast.unparse(node)


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize("name", [name for name in TOOLS if name.endswith(".sh")])
def test_shell_scripts_parse(name):
    subprocess.run(["bash", "-n", str(ROOT / "tools" / name)], check=True)


def test_demo_draws_the_default_scenes():
    assert " -m rsd2 demo " in (ROOT / "tools" / "demo.sh").read_text()
    jobs = {job.name: job for job in study_jobs(PRESETS["demo"], Path("OUT"))}
    scenes = [jobs["scenes_train"].command, jobs["scenes_val"].command]
    assert len({words[words.index("--seed") + 1] for words in scenes}) == 2
    eased = {"--empty-fraction", "--density", "--clutter", "--scale", "--themes"}
    assert not eased & {word for words in scenes for word in words}
