"""Hooks of the documentation site: READMEs become pages, and rooms list what they export.

A page has the path of its file in the repository, without ``docs/``; ``README.md`` of the root is
``start.md``. Links are written as the repository has them. A link to a page or a picture leads to
its place in the site, one to another file becomes plain text, and one to nothing is a warning,
which ``mkdocs build --strict`` turns into an error. Numbered lists are indented as the builder
wants.

A line ``<!-- exports: rsd2.ops -->`` becomes the documentation of every class and function that
this package exports, and ``<!-- names: rsd2 -->`` a list of links to theirs.
"""

from __future__ import annotations

import ast
import logging
import posixpath
import re
from pathlib import Path, PurePosixPath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("configs", "projects", "rsd2", "tools")

_LINK = re.compile(r"(?P<mark>!?)\[(?P<text>[^\]]*)\]\((?P<target>[^)\s]+)\)")
_IMAGE = re.compile(r"(?P<head><img [^>]*src=\")(?P<target>[^\"]+)(?=\")")
_CODE = re.compile(r"(^ *```.*?^ *```$)", re.MULTILINE | re.DOTALL)
_ITEM = re.compile(r"^\d+\. .*\n(?:(?: {3}.*)?\n)*", re.MULTILINE)
_EXPORTS = re.compile(r"^<!-- (exports|names): (\S+) -->$", re.MULTILINE)
_ROLE = re.compile(r":(?:attr|class|data|func|meth|mod):(?=<code>)")
_LOG = logging.getLogger("mkdocs.hooks")


def widen_lists(markdown: str) -> str:
    """Indent by four spaces what belongs to numbered items, as Python-Markdown wants it.

    The READMEs indent by three spaces, the width of the number, as GitHub wants it.
    """
    return _ITEM.sub(lambda item: re.sub("(?m)^ {3}", " " * 4, item[0]), markdown)


def repository_pages() -> list[str]:
    """Return the paths of the Markdown files outside ``docs`` that are pages, from the root."""
    found = [*ROOT.glob("*.md")]
    for folder in FOLDERS:
        found += (ROOT / folder).rglob("*.md")
    return sorted(path.relative_to(ROOT).as_posix() for path in found)


def site_path(path: str) -> str:
    """Return the path of a file of the repository in the site."""
    return "start.md" if path == "README.md" else path.removeprefix("docs/")


def repository_path(src_uri: str) -> str:
    """Return the path in the repository of a page: the inverse of ``site_path``."""
    if src_uri == "start.md":
        return "README.md"
    return src_uri if src_uri in repository_pages() else f"docs/{src_uri}"


def move_links(markdown: str, page_path: str, is_served: set[str]) -> str:
    """Write the links of a page as the site needs them.

    Args:
        markdown: text of the page.
        page_path: its path in the repository.
        is_served: paths of all files of the site.

    Returns:
        the text with changed links; code blocks stay as they are.
    """
    here = PurePosixPath(page_path).parent.as_posix()
    site_folder = PurePosixPath(site_path(page_path)).parent.as_posix()

    def move(match: re.Match[str]) -> str:
        target, _, anchor = match["target"].partition("#")
        if not target or ":" in target:  # an anchor of the same page, or an address
            return match[0]

        path = posixpath.normpath(posixpath.join(here, target))
        if not (ROOT / path).exists():
            _LOG.warning("%s links to %s, which does not exist", page_path, match["target"])
            return match[0]

        moved = posixpath.relpath(site_path(path), site_folder)
        if "head" in match.groupdict():
            return f"{match['head']}{moved}"
        if site_path(path) not in is_served:
            return match["text"]
        return f"{match['mark']}[{match['text']}]({moved}{'#' if anchor else ''}{anchor})"

    parts = _CODE.split(markdown)
    parts[::2] = [_IMAGE.sub(move, _LINK.sub(move, part)) for part in parts[::2]]
    return "".join(parts)


def exports(package: str) -> list[str]:
    """Return the homes of the classes and functions that a package exports.

    It exports what its ``__init__`` imports as its own name, like ``from .nms import nms as nms``,
    or lists in ``__all__``. Nothing is imported. Constants are left out: they have no docstring.
    """
    tree = ast.parse((ROOT / package.replace(".", "/") / "__init__.py").read_text("utf-8"))
    listed = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    homes = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom) or not (node.level or package == "rsd2"):
            continue
        home = f"{package}.{node.module}" if node.level else node.module
        homes += [
            f"{home}.{name.name}"
            for name in node.names
            if (name.asname == name.name or name.name in listed) and not name.name.isupper()
        ]
    return sorted(homes, key=lambda home: home.rpartition(".")[2].lower())


def list_exports(match: re.Match[str]) -> str:
    """Return the Markdown that stands for a comment of ``_EXPORTS``."""
    homes = exports(match[2])
    if match[1] == "names":
        return "\n".join(f"- [`{home.rpartition('.')[2]}`][{home}]" for home in homes)
    return "\n\n".join(f"::: {home}" for home in homes)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that do not lie in ``docs``."""
    for path in repository_pages():
        files.append(File.generated(config, site_path(path), abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead the links of a page to their places in the site, and write out its lists of exports."""
    uri = page.file.src_uri
    text = move_links(widen_lists(markdown), repository_path(uri), set(files.src_uris))
    return _EXPORTS.sub(list_exports, text)


def on_page_content(html: str, **_: object) -> str:
    """Take the roles of reStructuredText out of docstrings: ``:func:`` before a name."""
    return _ROLE.sub("", html)
