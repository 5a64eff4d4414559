"""The site of the documents: where its links lead, and what it takes for exported."""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("mkdocs")

API_PAGES = sorted((Path(__file__).parents[1] / "docs" / "api").glob("*.md"))


@pytest.fixture(scope="module")
def hooks(load_module: Callable[[str], ModuleType]) -> ModuleType:
    return load_module("docs/hooks.py")


@pytest.mark.parametrize(
    ("page", "link", "moved"),
    [
        ("docs/scenes.md", "[a](../README.md#angles)", "[a](start.md#angles)"),
        ("README.md", "![a](docs/images/a.png)", "![a](images/a.png)"),
        ("README.md", '<img alt="a" src="docs/images/a.png">', '<img alt="a" src="images/a.png">'),
        ("projects/MICML/README.md", "[a](../../docs/results.md)", "[a](../../results.md)"),
        ("docs/index.md", "[`a`](../setup.py)", "`a`"),
        ("docs/index.md", "[a](#here) [b](https://a.example/b)", None),
        ("docs/index.md", "```\nx[a](../README.md)\n```", None),
    ],
)
def test_links_lead_to_their_place_in_the_site(
    hooks: ModuleType, monkeypatch: pytest.MonkeyPatch, page: str, link: str, moved: str | None
) -> None:
    monkeypatch.setattr(Path, "exists", lambda path: True)
    served = {"start.md", "results.md", "images/a.png"}
    assert hooks.move_links(link, page, served) == (link if moved is None else moved)


def test_a_link_to_nothing_is_a_warning(
    hooks: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        hooks.move_links("[a](nowhere.md)", "docs/index.md", set())
    assert "docs/index.md links to nowhere.md, which does not exist" in caplog.text


def test_numbered_items_keep_their_blocks(hooks: ModuleType) -> None:
    markdown = pytest.importorskip("markdown")
    text = hooks.widen_lists("1. a\n   b\n\n   ```\n   c\n   ```\n\n2. d\n\nend\n   e\n")
    html = markdown.markdown(text, extensions=["pymdownx.superfences"])
    assert html.count("<ol>") == 1 and html.count("<li>") == 2
    assert text.endswith("end\n   e\n")


def test_paths_of_pages_and_files_belong_together(hooks: ModuleType) -> None:
    paths = [*hooks.repository_pages(), "docs/index.md", "docs/api/ops.md"]
    assert [hooks.repository_path(hooks.site_path(path)) for path in paths] == paths


@pytest.mark.parametrize(
    "package",
    [name for page in API_PAGES for name in re.findall(r"<!-- \w+: (\S+) -->", page.read_text())],
)
def test_pages_of_packages_list_all_their_classes_and_functions(
    hooks: ModuleType, package: str
) -> None:
    module = import_module(package)
    public = {name for name in dir(module) if not name.startswith("_")}
    wanted = {
        name
        for name in public
        if inspect.isclass(found := getattr(module, name)) or inspect.isfunction(found)
        if found.__module__.startswith("rsd2")
    }
    assert {home.rpartition(".")[2] for home in hooks.exports(package)} >= wanted
