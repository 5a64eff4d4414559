"""The look of a layer in QGIS, kept inside the GeoPackage: outlines coloured by class."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from xml.etree import ElementTree

_COLUMN = "class"
_LINE_WIDTH_MM = 0.4
_DATE = "2000-01-01T00:00:00.000Z"

# The table as QGIS makes it (QGIS manual, "Saving and sharing layer properties").
_TABLE = """
CREATE TABLE layer_styles (
    id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, f_table_catalog TEXT(256),
    f_table_schema TEXT(256), f_table_name TEXT(256), f_geometry_column TEXT(256),
    styleName TEXT(30), styleQML TEXT, styleSLD TEXT, useAsDefault BOOLEAN, description TEXT,
    owner TEXT(30), ui TEXT(30), update_time DATETIME
)
"""


def make_layer_style(colors: Mapping[str, tuple[int, int, int]]) -> str:
    """Write QGIS's style document of a layer of polygons.

    Args:
        colors: red, green and blue, 0 to 255, of each value of the column ``class``.

    Returns:
        XML, a QML file's content.
    """
    root = ElementTree.Element("qgis", version="3.28.0", styleCategories="Symbology")
    renderer = ElementTree.SubElement(
        root, "renderer-v2", type="categorizedSymbol", attr=_COLUMN, symbollevels="0",
        enableorderby="0", forceraster="0",
    )  # fmt: skip
    categories = ElementTree.SubElement(renderer, "categories")
    symbols = ElementTree.SubElement(renderer, "symbols")
    for index, (name, (red, green, blue)) in enumerate(colors.items()):
        ElementTree.SubElement(
            categories, "category", value=name, label=name, symbol=str(index), render="true",
            type="string",
        )  # fmt: skip
        symbol = ElementTree.SubElement(
            symbols, "symbol", type="fill", name=str(index), alpha="1", clip_to_extent="1",
            force_rhr="0",
        )  # fmt: skip

        # A line, not a filling: the objects below must stay visible.
        layer = ElementTree.SubElement(
            symbol, "layer", {"class": "SimpleLine", "enabled": "1", "locked": "0", "pass": "0"}
        )
        settings = {
            "line_color": f"{red},{green},{blue},255",
            "line_style": "solid",
            "line_width": str(_LINE_WIDTH_MM),
            "line_width_unit": "MM",
            "joinstyle": "miter",
            "capstyle": "square",
        }
        options = ElementTree.SubElement(layer, "Option", type="Map")
        for key, value in settings.items():
            ElementTree.SubElement(options, "Option", name=key, value=value, type="QString")

            # Versions before 3.20 read these instead.
            ElementTree.SubElement(layer, "prop", k=key, v=value)

    ElementTree.indent(root)
    head = "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"
    return head + ElementTree.tostring(root, encoding="unicode") + "\n"


def write_layer_style(path: Path, layer: str, colors: Mapping[str, tuple[int, int, int]]) -> None:
    """Store the style of a layer in its GeoPackage, where QGIS finds it.

    Args:
        path: path of the GeoPackage, which no program has open.
        layer: name of the layer.
        colors: red, green and blue, 0 to 255, of each value of the column ``class``.

    Raises:
        sqlite3.Error: the file cannot be written.
    """
    with closing(sqlite3.connect(path)) as database, database:
        (column,) = database.execute(
            "SELECT column_name FROM gpkg_geometry_columns WHERE table_name = ?", (layer,)
        ).fetchone()
        database.execute(_TABLE)

        # A table that the GeoPackage does not list is invisible to other programs.
        database.execute(
            "INSERT INTO gpkg_contents (table_name, data_type, identifier, last_change) "
            "VALUES ('layer_styles', 'attributes', 'layer_styles', ?)",
            (_DATE,),
        )
        database.execute(
            "INSERT INTO layer_styles (f_table_catalog, f_table_schema, f_table_name, "
            "f_geometry_column, styleName, styleQML, styleSLD, useAsDefault, description, owner, "
            "update_time) VALUES ('', '', ?, ?, 'classes', ?, '', 1, 'classes by colour', '', ?)",
            (layer, column, make_layer_style(colors), _DATE),
        )
