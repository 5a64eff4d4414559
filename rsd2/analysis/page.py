"""A page of HTML in one file: text, tables, plots and pictures, without network or JavaScript."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

import cv2
import matplotlib
import numpy as np
from matplotlib.figure import Figure

from rsd2.io.files import write_atomically

Cell = str | int | float | None

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2126; --dim: #5c6670; --paper: #fff; --card: #f3f5f7;
  --line: #d5dae0; --link: #0b5cad; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e8ec; --dim: #9aa5b0; --paper: #14181c; --card: #1e242a; --line: #353d46;
    --link: #7db8f5; }
  img.plot { filter: invert(.92) hue-rotate(180deg); } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 72rem; padding: 1rem; color: var(--ink);
  background: var(--paper); font: 16px/1.5 system-ui, sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: .5rem 0; }
h2 { font-size: 1.25rem; margin: 2.2rem 0 .5rem; padding-top: .6rem;
  border-top: 1px solid var(--line); }
h3 { font-size: 1.05rem; margin: 1.4rem 0 .3rem; }
a { color: var(--link); }
p { margin: .4rem 0; max-width: 48rem; }
.dim, figcaption, caption { color: var(--dim); font-size: .85rem; text-align: left; }
nav { display: flex; flex-wrap: wrap; gap: .2rem 1rem; font-size: .9rem; margin: .8rem 0; }
.facts { display: grid; gap: .6rem; margin: .8rem 0;
  grid-template-columns: repeat(auto-fill, minmax(8.5rem, 1fr)); }
.facts div { background: var(--card); border-radius: .5rem; padding: .5rem .75rem; }
.facts b { display: block; font-size: 1.35rem; line-height: 1.25; }
.facts span { color: var(--dim); font-size: .85rem; }
.scroll { overflow-x: auto; margin: .6rem 0; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .75rem .25rem 0; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--line); }
td:not(.number) { min-width: 6.5rem; overflow-wrap: anywhere; }
th.number, td.number { text-align: right; white-space: nowrap; }
figure { margin: .6rem 0; }
img { max-width: 100%; height: auto; border-radius: .3rem; }
figure:has(> img.plot) { display: inline-block; vertical-align: top; margin-right: 1.5rem; }
figure:has(> img.plot) figcaption { max-width: 27rem; }
.gallery { display: grid; gap: .75rem; margin: .6rem 0;
  grid-template-columns: repeat(auto-fill, minmax(min(14rem, 46%), 1fr)); }
.gallery figure { margin: 0; min-width: 0; }
.gallery img { width: 100%; display: block; }
.gallery figcaption { overflow-wrap: anywhere; line-height: 1.3; margin-top: .2rem; }
.gallery.wide { grid-template-columns: repeat(auto-fill, minmax(min(26rem, 100%), 1fr)); }
.lead { font-size: 1.15rem; line-height: 1.55; max-width: 52rem; margin: 1rem 0; }
pre { background: var(--card); border-radius: .5rem; padding: .6rem .8rem; overflow-x: auto;
  font: .85rem/1.5 ui-monospace, monospace; margin: .5rem 0; }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1rem; font-size: .9rem; margin: .4rem 0; }
.legend i { display: inline-block; width: .8rem; height: .8rem; border-radius: .2rem;
  margin-right: .35rem; vertical-align: -.05rem; border: 1px solid var(--line); }
"""


class Page:
    """An HTML page that grows from top to bottom.

    It is readable on a phone and follows the light or dark scheme of the browser. All text is
    taken as it is: nothing in it is markup.
    """

    def __init__(self, title: str, subtitle: str = "") -> None:
        """Start a page.

        Args:
            title: heading of the page, and of its window.
            subtitle: sentence below it.
        """
        self._title, self._subtitle = title, subtitle
        self._body: list[str] = []
        self._sections: list[str] = []

    def section(self, title: str, text: str = "") -> None:
        """Begin a section; the top of the page links to it.

        Args:
            title: heading.
            text: paragraph below it.
        """
        self._sections.append(title)
        self._body.append(f'<h2 id="s{len(self._sections)}">{escape(title)}</h2>')
        self.paragraph(text)

    def heading(self, title: str, text: str = "") -> None:
        """Begin a part of a section.

        Args:
            title: heading.
            text: paragraph below it.
        """
        self._body.append(f"<h3>{escape(title)}</h3>")
        self.paragraph(text)

    def paragraph(self, text: str, *, dim: bool = False) -> None:
        """Add a paragraph.

        Args:
            text: its text; an empty one adds nothing.
            dim: print it small and pale, for notes.
        """
        if text:
            kind = ' class="dim"' if dim else ""
            self._body.append(f"<p{kind}>{escape(text)}</p>")

    def lead(self, text: str) -> None:
        """Add the paragraph that says what the whole page is about, in larger letters.

        Args:
            text: its text.
        """
        self._body.append(f'<p class="lead">{escape(text)}</p>')

    def code(self, text: str) -> None:
        """Add lines to copy, such as commands.

        Args:
            text: the lines.
        """
        self._body.append(f"<pre>{escape(text)}</pre>")

    def links(self, links: Iterable[tuple[str, str]]) -> None:
        """Add links to files beside the page, in one line.

        Args:
            links: (text, path relative to the page's folder) of each.
        """
        inner = (f'<a href="{escape(quote(target))}">{escape(text)}</a>' for text, target in links)
        self._body.append(f"<nav>{''.join(inner)}</nav>")

    def legend(self, colors: Iterable[tuple[str, tuple[int, int, int]]]) -> None:
        """Say what the colours of a picture mean.

        Args:
            colors: (name, RGB, 0 to 255) of each.
        """
        inner = (
            f'<span><i style="background:rgb{rgb}"></i>{escape(name)}</span>'
            for name, rgb in colors
        )
        self._body.append(f'<div class="legend">{"".join(inner)}</div>')

    def facts(self, facts: Iterable[tuple[str, Cell]]) -> None:
        """Add the few numbers that a reader looks for first, each in a box.

        Args:
            facts: (name, value) of each.
        """
        boxes = (f"<div><b>{_text(v)}</b><span>{escape(name)}</span></div>" for name, v in facts)
        self._body.append(f'<div class="facts">{"".join(boxes)}</div>')

    def table(
        self, header: Sequence[str], rows: Iterable[Sequence[Cell]], caption: str = ""
    ) -> None:
        """Add a table, which scrolls on its own where the screen is narrow.

        Args:
            header: names of the columns.
            rows: cells; numbers stand on the right, floats with four digits, None is a dash.
            caption: sentence above it.
        """
        lines = [list(row) for row in rows]
        # A column is one of numbers if it has any, so that its heading stands where they stand.
        columns = list(zip(*lines)) or [()] * len(header)
        numeric = [any(isinstance(cell, int | float) for cell in column) for column in columns]

        def line(tag: str, cells: Sequence[Cell]) -> str:
            kinds = (' class="number"' if number else "" for number in numeric)
            inner = (f"<{tag}{kind}>{_text(c)}</{tag}>" for kind, c in zip(kinds, cells))
            return f"<tr>{''.join(inner)}</tr>"

        head = f"<caption>{escape(caption)}</caption>" if caption else ""
        body = "\n".join(line("td", cells) for cells in lines)
        self._body.append(
            f'<div class="scroll"><table>{head}<thead>{line("th", header)}</thead>'
            f"<tbody>{body}</tbody></table></div>"
        )

    def plot(self, figure: Figure, caption: str = "", *, vector: bool = True) -> None:
        """Add a figure of Matplotlib.

        Args:
            figure: figure made without pyplot, on a white background; the dark scheme inverts it.
            caption: sentence below it, and its text for readers who do not see it.
            vector: write SVG; False writes PNG, which is smaller for many thousands of points.
        """
        stream = io.BytesIO()
        # A fixed salt and no date: the same figure gives the same bytes.
        with matplotlib.rc_context({"svg.hashsalt": "rsd2"}):
            if vector:
                figure.savefig(stream, format="svg", metadata={"Date": None})
            else:
                figure.savefig(stream, format="png", dpi=110)

        # As an image of its own: SVG within the page would share its ids with the next plot.
        kind = "svg+xml" if vector else "png"
        self._body.append(_figure(kind, stream.getvalue(), caption, "plot"))

    def gallery(
        self,
        pictures: Iterable[tuple[np.ndarray, str]],
        *,
        lossless: bool = False,
        wide: bool = False,
    ) -> None:
        """Add pictures, as many beside each other as the screen has room for.

        Args:
            pictures: (uint8 pixels (H, W, 3) in RGB, caption) of each; none add nothing.
            lossless: write PNG; False writes JPEG, a tenth of the size.
            wide: put two beside each other at most, and a phone's one below the other.
        """
        figures = [_picture(pixels, caption, lossless) for pixels, caption in pictures]
        if figures:
            kind = "gallery wide" if wide else "gallery"
            self._body.append(f'<div class="{kind}">{"".join(figures)}</div>')

    def picture(self, pixels: np.ndarray, caption: str = "") -> None:
        """Add one picture in its own size, or as wide as the screen if that is narrower.

        Args:
            pixels: uint8 (H, W, 3) in RGB, written as JPEG.
            caption: sentence below it.
        """
        self._body.append(_picture(pixels, caption, lossless=False))

    def render(self) -> str:
        """Return the page as HTML."""
        links = (f'<a href="#s{i}">{escape(t)}</a>' for i, t in enumerate(self._sections, 1))
        subtitle = f'<p class="dim">{escape(self._subtitle)}</p>' if self._subtitle else ""

        return "\n".join(
            [
                '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
                '<meta name="viewport" content="width=device-width, initial-scale=1">',
                f"<title>{escape(self._title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>",
                f"<h1>{escape(self._title)}</h1>{subtitle}<nav>{''.join(links)}</nav>",
                *self._body,
                "</body>\n</html>\n",
            ]
        )

    def write(self, path: str | Path) -> None:
        """Write the page, completely or not at all.

        Args:
            path: HTML file, which is replaced if it exists.

        Raises:
            OSError: if it cannot be written.
        """
        write_atomically(path, self.render())


def _text(cell: Cell) -> str:
    if cell is None:
        return "–"
    return escape(f"{cell:.4g}" if isinstance(cell, float) else str(cell))


def _picture(pixels: np.ndarray, caption: str, lossless: bool) -> str:
    kind, options = ("png", []) if lossless else ("jpeg", [cv2.IMWRITE_JPEG_QUALITY, 85])
    bgr = cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2BGR)
    _, encoded = cv2.imencode(f".{kind}", bgr, options)
    return _figure(kind, encoded.tobytes(), caption, "picture")


def _figure(kind: str, content: bytes, caption: str, style: str) -> str:
    data = base64.b64encode(content).decode("ascii")
    image = f'<img class="{style}" alt="{escape(caption)}" src="data:image/{kind};base64,{data}">'
    below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f"<figure>{image}{below}</figure>\n"
