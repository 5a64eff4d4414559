"""The page is whole in one file, and takes text as text."""

from html.parser import HTMLParser

import numpy as np
from matplotlib.figure import Figure

from rsd2.analysis.page import Page


class _Nesting(HTMLParser):
    """Checks that tags close in order, and collects addresses."""

    def __init__(self):
        super().__init__()
        self.open, self.addresses, self.text = [], [], []

    def handle_starttag(self, tag, attrs):
        self.addresses += [v for k, v in attrs if k in ("src", "href")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_page_is_well_formed_and_needs_nothing_outside_itself(tmp_path):
    page = Page("Doctor <ships>", "two & more")
    page.section("Numbers", "a < b")
    page.facts([("images", 12), ("share", 0.123456)])
    page.table(["class", "count"], [["<b>ship</b>", 3], ["plane", None]], "by class")
    page.table(["nothing"], [])
    figure = Figure()
    figure.subplots().plot([1, 2], label="é")
    page.plot(figure, "a plot")
    page.plot(figure, vector=False)
    page.gallery([(np.zeros((4, 5, 3), np.uint8), 'says "hi"')])
    page.gallery([])
    page.gallery([(np.zeros((4, 5, 3), np.uint8), "")], wide=True)
    page.picture(np.zeros((4, 5, 3), np.uint8))
    page.lead("a > b")
    page.code("rsd2 scene --input 'a b.tif'")
    page.legend([("<ship>", (1, 2, 3))])
    page.links([("the <map>", "maps/a b.gpkg")])
    page.write(tmp_path / "page.html")

    parser = _Nesting()
    parser.feed((tmp_path / "page.html").read_text("utf-8"))
    assert parser.open == []
    assert {"<b>ship</b>", "0.1235", "–", "a < b", "a > b"} <= set(parser.text)
    assert {"rsd2 scene --input 'a b.tif'", "<ship>", "the <map>"} <= set(parser.text)
    # Nothing but links leaves the page.
    inside = [one for one in parser.addresses if one.startswith(("data:image/", "#"))]
    assert set(parser.addresses) - set(inside) == {"maps/a%20b.gpkg"}
    assert sum(one.startswith("data:image/") for one in inside) == 5


def test_same_content_gives_the_same_bytes():
    def build():
        page, figure = Page("a"), Figure()
        figure.subplots().plot([1, 2])
        page.plot(figure)
        return page.render()

    assert build() == build()
