"""The map of the house, enforced: who imports whom, how long files and functions may be.

A room is a folder or a file directly under ``rsd2``. CONTRIBUTING.md states these rules in words.
"""

from __future__ import annotations

import ast
import io
import re
import subprocess
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

MAY_IMPORT = {  # room -> rooms that it may import, besides itself
    "__init__": set(),
    "env": set(),
    "io": set(),
    "ops": set(),
    "structures": {"ops"},
    "layers": {"ops", "structures"},
    "modeling": {"ops", "structures", "layers"},
    "config": {"io"},
    "weights": {"io", "layers"},
    "engine": {"io"},
    "data": {"io", "ops", "structures", "geo"},
    "synthetic": {"io", "ops", "structures", "data", "geo"},
    "evaluation": {"io", "ops", "structures", "data"},
    "analysis": {"io", "ops", "structures", "data", "evaluation"},
    "inference": {"io", "ops", "structures", "data", "evaluation", "geo"},
    "study": {"io", "config"},
    "geo": {"io", "ops", "structures"},
    "export": {"io", "structures", "modeling"},
}
ROOMS = set(MAY_IMPORT) - {"__init__"}
# A verb of the command line puts rooms together; a project too, and its own package.
MAY_IMPORT["commands"] = set(ROOMS)
# The shop window: for type checkers, and imported only when a name is asked for.
MAY_IMPORT["__init__"] = ROOMS | {"commands"}
MAY_IMPORT["__main__"] = {"commands"}
MAY_IMPORT["testing"] = set(ROOMS)
MAY_IMPORT["projects"] = ROOMS | {"testing"}
# Rooms that search the package of projects for what these bring; none names one of them.
SEARCH_PROJECTS = {"commands", "testing"}

MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 80
LONG_ENOUGH_FOR_A_REASON: dict[str, str] = {}  # "path" or "path:function" -> why it is longer

COMPILED_SUFFIXES = {".c", ".cc", ".cpp", ".cu", ".cuh", ".h"}
SOURCE_FOLDERS = ("rsd2", "projects", "configs", "benchmarks", "tools", "tests")

# In pieces, so that this file does not contain what it forbids.
FORBIDDEN_TEXT = {
    "path of one machine": re.compile(
        r"(?<![\w.$}\-])/(?:root|home|Users|opt|mnt|work)" + r"/[\w.\-]+|/tmp" + r"/[\w.\-]+"
    ),
    "host of a package registry": re.compile(
        r"\b(?:pypi|pythonhosted|npmjs|anaconda|conda)" + r"\.(?:org|com|io)\b"
        r"|\bdownload\."
        + r"pytorch\.org\b|\bdeb\."
        + r"debian\.org\b|--(?:extra-)?index-"
        + r"url\b"
    ),
}

Problem = tuple[str, int, str]  # path from the root, line, what is wrong


def python_files(root: Path, *folders: str) -> list[Path]:
    """Every Python file of some top-level folders, without caches and environments."""
    files = (path for folder in folders for path in (root / folder).rglob("*.py"))
    return sorted(path for path in files if not {"__pycache__", ".venv"} & set(path.parts))


def module_name(path: Path, root: Path) -> str:
    """Dotted name under which a file is imported; files of a project live in ``rsd2.projects``."""
    parts = list(path.relative_to(root).with_suffix("").parts)
    if parts[0] == "projects":
        parts = ["rsd2", "projects", *parts[2:]]
    return ".".join(parts)


def imported_modules(tree: ast.AST, module: str) -> Iterator[tuple[str, int, int]]:
    """Yield (absolute module name, line, dots) of each import, also those inside functions."""
    package = module.split(".")[:-1]  # right for __init__ too, whose name ends in .__init__
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno, 0) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            name = ".".join([*base, *([node.module] if node.module else [])])
            if name in ("rsd2", "rsd2.projects"):  # the names are the rooms or the projects
                yield from ((f"{name}.{a.name}", node.lineno, node.level) for a in node.names)
            else:
                yield name, node.lineno, node.level


def own_packages(path: Path, root: Path) -> set[str]:
    """Names of the packages of the project that a file belongs to."""
    project = root / "projects" / path.relative_to(root).parts[1]
    return {init.parent.name for init in project.glob("*/__init__.py")}


def import_problems(root: Path) -> list[Problem]:
    """Check every import of ``rsd2`` and ``projects`` against :data:`MAY_IMPORT`."""
    problems = []
    for path in python_files(root, "rsd2", "projects"):
        relative = path.relative_to(root).as_posix()
        module = module_name(path, root)
        room = module.split(".")[1]
        is_project = relative.startswith("projects/")
        own = own_packages(path, root) if is_project else set()
        if room not in MAY_IMPORT:
            problems.append((relative, 1, f"unknown room {room!r}: give it a line in MAY_IMPORT"))
            continue
        for name, line, dots in imported_modules(ast.parse(path.read_text("utf-8")), module):
            parts = name.split(".")
            if dots > 1:
                problems.append((relative, line, "two dots: write the full name rsd2.<room>"))
            elif parts[0] == "projects":
                problems.append((relative, line, f"{name}: write rsd2.projects.<name>"))
            elif parts[0] == "rsd2" and len(parts) > 1 and not parts[1].startswith("__"):
                target, project = parts[1], parts[2] if len(parts) > 2 else ""
                if name == "rsd2.projects" and room in SEARCH_PROJECTS:
                    continue
                if target == "projects" and is_project and (project in own or dots == 1):
                    continue
                if target != room and target not in MAY_IMPORT[room]:
                    problems.append((relative, line, f"{room} must not import {name}"))
                elif target == room == "projects":
                    problems.append((relative, line, f"a project must not import {name}"))
    return problems


def code_lines(text: str, first: int = 1, last: int | None = None) -> int:
    """Lines between two that hold code: no blank line, comment or docstring counts."""
    documented: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        owners = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
        if isinstance(node, owners) and ast.get_docstring(node, clean=False) is not None:
            documented.update(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    without_code = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT}
    without_code |= {tokenize.DEDENT, tokenize.ENDMARKER}
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in without_code:
            lines.update(range(token.start[0], token.end[0] + 1))
    return sum(first <= line and (last is None or line <= last) for line in lines - documented)


def length_problems(root: Path) -> list[Problem]:
    """Find files and functions that are too long and have no reason to be."""
    problems = []
    for path in [*python_files(root, *SOURCE_FOLDERS), root / "setup.py"]:
        relative, text = path.relative_to(root).as_posix(), path.read_text("utf-8")
        lines = code_lines(text)
        if lines >= MAX_FILE_LINES and relative not in LONG_ENOUGH_FOR_A_REASON:
            problems.append((relative, lines, f"{lines} lines, allowed are {MAX_FILE_LINES - 1}"))
        for node in ast.walk(ast.parse(text)):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            if node.end_lineno - node.lineno < MAX_FUNCTION_LINES:
                continue  # counting its tokens would not find more
            length, name = code_lines(text, node.lineno, node.end_lineno), f"{relative}:{node.name}"
            if length >= MAX_FUNCTION_LINES and name not in LONG_ENOUGH_FOR_A_REASON:
                message = f"{node.name} has {length} lines, allowed are {MAX_FUNCTION_LINES - 1}"
                problems.append((relative, node.lineno, message))
    return problems


def circles(root: Path) -> list[list[str]]:
    """Find modules that import each other, directly or through others."""
    files = {
        module_name(path, root).removesuffix(".__init__"): path
        for path in python_files(root, "rsd2", "projects")
    }
    # The shop window names homes for type checkers, and imports them when they are asked for.
    files.pop("rsd2", None)
    graph = {}
    for module, path in files.items():
        names = set()
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom):
                package = module.split(".")
                if path.name != "__init__.py":
                    package = package[:-1]
                base = package[: len(package) - node.level + 1] if node.level else []
                name = ".".join([*base, *([node.module] if node.module else [])])
                for alias in node.names:  # a module of the package, or something that it offers
                    whole = f"{name}.{alias.name}"
                    names.add(whole if whole in files else name)
            elif isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
        graph[module] = {name for name in names if name in files and name != module}
    found, state, trail = [], {}, []

    def visit(module: str) -> None:
        state[module] = "open"
        trail.append(module)
        for target in sorted(graph[module]):
            if state.get(target) == "open":
                found.append(trail[trail.index(target) :])
            elif target not in state:
                visit(target)
        trail.pop()
        state[module] = "done"

    for module in sorted(graph):
        if module not in state:
            visit(module)
    return found


def text_problems(name: str, text: str) -> list[Problem]:
    """Find text that would be true on one machine only."""
    return [
        (name, number, f"{what}: {match.group()}")
        for number, line in enumerate(text.splitlines(), start=1)
        for what, pattern in FORBIDDEN_TEXT.items()
        for match in pattern.finditer(line)
    ]


def source_length_problems(root: Path) -> list[Problem]:
    """Find C++ and CUDA files that are too long; what a function is, only a compiler knows."""
    problems = []
    for path in sorted(path for folder in SOURCE_FOLDERS for path in (root / folder).rglob("*")):
        relative = path.relative_to(root).as_posix()
        if path.suffix not in COMPILED_SUFFIXES or relative in LONG_ENOUGH_FOR_A_REASON:
            continue
        lines = len(path.read_text("utf-8").splitlines())
        if lines >= MAX_FILE_LINES:
            problems.append((relative, lines, f"{lines} lines, allowed are {MAX_FILE_LINES - 1}"))
    return problems


def published_files(root: Path) -> list[Path]:
    """Files that git has or would take; without git, those of the known folders."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    if (root / ".git").exists():
        result = subprocess.run(command, cwd=root, capture_output=True, text=True)
        if result.returncode == 0:
            return [root / name for name in result.stdout.splitlines() if (root / name).is_file()]
    folders = (*SOURCE_FOLDERS, "docs", ".ci")
    files = [path for folder in folders for path in (root / folder).rglob("*") if path.is_file()]
    files += [path for path in root.iterdir() if path.is_file()]
    return [path for path in files if "__pycache__" not in path.parts]


def show(problems: list[Problem]) -> str:
    """One ``path:line: message`` each, as editors understand it."""
    return "".join(f"\n{path}:{line}: {message}" for path, line, message in problems)


def test_imports_follow_the_map(repository: Path) -> None:
    problems = import_problems(repository)
    assert not problems, show(problems)


def test_no_modules_import_each_other(repository: Path) -> None:
    assert circles(repository) == []


def test_files_and_functions_are_short(repository: Path) -> None:
    problems = length_problems(repository) + source_length_problems(repository)
    assert not problems, show(problems)


def test_exceptions_are_still_needed(repository: Path) -> None:
    for name in LONG_ENOUGH_FOR_A_REASON:
        assert (repository / name.split(":")[0]).is_file(), f"{name} is gone: take it off the list"


def test_nothing_is_tied_to_one_machine(repository: Path) -> None:
    problems = []
    for path in published_files(repository):
        try:
            text = path.read_text("utf-8")
        except UnicodeDecodeError:
            continue  # a picture
        problems += text_problems(path.relative_to(repository).as_posix(), text)
    assert not problems, show(problems)


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """A small house in which everything is allowed."""
    files = {
        "rsd2/__init__.py": '__version__ = "1"\n',
        "rsd2/ops/__init__.py": "from .iou import iou\n",
        "rsd2/ops/iou.py": "import torch\ndef iou(): ...\n",
        "rsd2/structures/boxes.py": "from rsd2 import __version__\nfrom rsd2.ops import iou\n",
        "rsd2/data/__init__.py": "from .datasets import dota\n",
        "rsd2/data/datasets/dota.py": "from . import x\nfrom rsd2.data.windows.tiling import y\n",
        "rsd2/evaluation/ap.py": "import rsd2.data.windows.tiling\nfrom rsd2.ops import iou\n",
        "rsd2/testing.py": "import rsd2.projects\nfrom rsd2.modeling import z\n",
        "projects/One/one/__init__.py": "from .model import m\n",
        "projects/One/one/model.py": "import rsd2.modeling\nfrom rsd2.projects.one.n import m\n",
        "projects/One/one/n.py": "m = 1\n",
        "projects/One/configs/one_r50.py": "from .models.one import model\n",
        "projects/Two/two/__init__.py": "",
        "setup.py": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_checker_accepts_what_is_allowed(toy: Path) -> None:
    assert import_problems(toy) == []
    assert length_problems(toy) == []


@pytest.mark.parametrize(
    ("name", "line", "message"),
    [
        ("rsd2/ops/bad.py", "from rsd2.structures import boxes", "ops must not import rsd2.str"),
        ("rsd2/ops/bad.py", "import rsd2.modeling.losses", "ops must not import rsd2.modeling"),
        ("rsd2/ops/bad.py", "def f():\n    from rsd2.layers import mlp", "ops must not import"),
        ("rsd2/layers/bad.py", "from rsd2 import ops, modeling", "must not import rsd2.modeling"),
        ("rsd2/modeling/bad.py", "from rsd2.data import tiling", "modeling must not import"),
        ("rsd2/data/bad.py", "from rsd2.evaluation import ap", "data must not import"),
        ("rsd2/engine/bad.py", "from rsd2.ops import iou", "engine must not import"),
        ("rsd2/config/bad.py", "from rsd2.ops import iou", "config must not import rsd2.ops"),
        ("rsd2/modeling/bad.py", "from ..ops import iou", "two dots"),
        ("rsd2/data/datasets/bad.py", "from ..tiling import y", "two dots"),
        ("rsd2/modeling/bad.py", "import rsd2.projects.one", "modeling must not import"),
        ("rsd2/testing.py", "from rsd2.projects import one", "testing must not import"),
        ("rsd2/commands/bad.py", "import rsd2.projects.one", "commands must not import"),
        ("projects/One/one/bad.py", "import rsd2.projects.two", "a project must not import"),
        ("projects/One/one/bad.py", "from rsd2.projects import two", "a project must not import"),
        ("projects/One/configs/bad.py", "from rsd2.projects.two import t", "a project must not"),
        ("projects/One/one/bad.py", "from projects.Two.two import t", "write rsd2.projects"),
        ("rsd2/utils/bad.py", "import torch", "unknown room 'utils'"),
    ],
)
def test_checker_catches_what_is_not(toy: Path, name: str, line: str, message: str) -> None:
    (toy / name).parent.mkdir(parents=True, exist_ok=True)
    (toy / name).write_text(line + "\n")
    ((path, number, found),) = import_problems(toy)
    assert path == name
    assert number == len(line.splitlines())
    assert message in found


def test_checker_catches_length(toy: Path) -> None:
    body = "".join(f"    x{i} = {i}  # why\n\n    # a comment\n" for i in range(78))
    docstring = '    """One.\n\n    Two.\n    """\n'
    path = toy / "rsd2" / "ops" / "long.py"
    path.write_text("def f():\n" + docstring + body)
    assert length_problems(toy) == []
    path.write_text("def f():\n" + docstring + body + "    y = 1\n")
    assert [problem[2] for problem in length_problems(toy)] == ["f has 80 lines, allowed are 79"]
    path.write_text('"""Doc."""\n\n' + "x = 1\n\n# a comment\n" * 499)
    assert length_problems(toy) == []
    path.write_text('"""Doc."""\n\n' + "x = 1\n\n# a comment\n" * 500)
    assert [problem[2] for problem in length_problems(toy)] == ["500 lines, allowed are 499"]
    for suffix, number in (("cpp", 500), ("cuh", 500), ("h", 499), ("txt", 999)):
        (toy / "rsd2" / "ops" / f"kernel.{suffix}").write_text("// x\n" * number)
    assert [problem[0] for problem in source_length_problems(toy)] == [
        "rsd2/ops/kernel.cpp",
        "rsd2/ops/kernel.cuh",
    ]


def test_checker_catches_circles(toy: Path) -> None:
    assert circles(toy) == []
    (toy / "rsd2/data/tiling.py").write_text("from .cutting import cut\n")
    (toy / "rsd2/data/cutting.py").write_text("def cut():\n    from . import tiling\n")
    assert circles(toy) == [["rsd2.data.cutting", "rsd2.data.tiling"]]


@pytest.mark.parametrize(
    ("text", "is_bad"),
    [
        ("open('/ho" + "me/someone/x')", True),
        ("see /tm" + "p/plan", True),
        ("https://py" + "pi.org/simple", True),
        ("--extra-index-" + "url x", True),
        ("/data/ships/labelTxt", False),
        ("<root>/images, $ROOT/homework and a/" + "root/b", False),
        ("an opt/work ratio; PyPI has no Detectron2", False),
    ],
)
def test_checker_of_machine_text(text: str, is_bad: bool) -> None:
    assert bool(text_problems("x", text)) == is_bad
