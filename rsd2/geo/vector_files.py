"""Vector files of boxes, written atomically, in bounded memory, with reproducible bytes.

The ending chooses the format: ``.gpkg`` GeoPackage, ``.geojson`` or ``.json`` GeoJSON (RFC 7946),
``.geojsonl`` or ``.geojsonseq`` the same with one object in a line, ``.fgb`` FlatGeobuf, ``.csv``
text with the polygon as WKT. GeoPackage, FlatGeobuf and CSV keep the scene's coordinate system;
GeoJSON is always in longitude and latitude, with seven decimals and rings against the clock.

Shapes: N objects; polygons (N, 4, 2).
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import sqlite3
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from rsd2.io.files import replaced_file, write_atomically

from .georeference import LONGITUDE_LATITUDE, transform_points
from .layer_style import write_layer_style
from .libraries import geo_library

FORMATS = {
    ".gpkg": "GPKG",
    ".geojson": "GeoJSON",
    ".json": "GeoJSON",
    ".geojsonl": "GeoJSONSeq",
    ".geojsonseq": "GeoJSONSeq",
    ".fgb": "FlatGeobuf",
    ".csv": "CSV",
}
"""Ending -> driver of GDAL."""

_ENDINGS = {
    "GPKG": ".gpkg",
    "GeoJSON": ".geojsonl",
    "GeoJSONSeq": ".geojsonl",
    "FlatGeobuf": ".fgb",
    "CSV": ".csv",
}

SIDECAR_ENDING = ".metadata.json"
"""Added to the names of files whose format has no place for metadata."""

_PORTION = 10_000
"""Objects written at a time; fixed, so that the bytes do not depend on the sizes of added parts."""

_DATE = "2000-01-01T00:00:00.000Z"
"""Stands for the time of writing, so that the same content gives the same bytes."""


class VectorFileError(ValueError):
    """A vector file that cannot be read or written; the message names it and what to do."""


def check_vector_output(path: str | Path) -> Path:
    """Check before long work whether a vector file can be written.

    Args:
        path: path of the file; it may exist.

    Returns:
        The path.

    Raises:
        VectorFileError: the ending is of no known format, the folder is missing or may not be
            written to, or another program has the file open.
    """
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise VectorFileError(
            f"{path} has no ending of a vector file; take one of {', '.join(FORMATS)}"
        )

    if path.is_dir() or not path.parent.is_dir():
        what = "is a folder" if path.is_dir() else "lies in a folder that does not exist"
        raise VectorFileError(f"{path} {what}; choose another output")
    if not os.access(path.parent, os.W_OK):
        raise VectorFileError(f"{path.parent} may not be written to; choose another output")
    if path.is_file() and FORMATS[path.suffix.lower()] == "GPKG":
        _check_unlocked(path)
    return path


def _check_unlocked(path: Path) -> None:
    """Raise if another program has the GeoPackage open.

    Its journal would be applied to the new file and destroy it.
    """
    journals = [path.with_name(path.name + ending) for ending in ("-wal", "-journal")]
    used = [journal.name for journal in journals if journal.exists() and journal.stat().st_size]
    reason = f"{used[0]} lies beside it" if used else ""
    if not used:
        try:
            with closing(sqlite3.connect(path, timeout=0)) as database:
                database.execute("BEGIN EXCLUSIVE")
                database.rollback()
        except sqlite3.OperationalError as error:
            reason = str(error)
        except sqlite3.DatabaseError:
            return  # no database at all: nobody works in it

    if reason:
        raise VectorFileError(
            f"{path} is open in another program ({reason}); close it there, or choose another "
            "output"
        )


class VectorWriter:
    """Context manager that writes one layer of boxes, portion by portion.

    The file appears when the block ends, and not at all if the block raises. Equal content gives
    equal bytes, however it is divided among the calls of :meth:`add`. FlatGeobuf alone keeps the
    objects in memory until then, about 250 bytes each, because its index comes first.

    Args:
        path: path of the file; its ending chooses the format.
        crs: coordinate system of the polygons; None for pixels.
        metadata: plain values that tell how the objects were made; kept in the GeoPackage or
            GeoJSON itself, else in a file of the same name with ``.metadata.json`` added.
        colors: red, green and blue of each class, 0 to 255, for the style of a GeoPackage; by the
            column ``class``. None writes no style.
        layer: name of the layer.
        decimals: decimals of the degrees in GeoJSON; 7, which RFC 7946 recommends, are a
            centimetre.

    Attributes:
        num_objects: number of objects written so far.

    Raises:
        VectorFileError: the file cannot be written.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        crs: str | None,
        metadata: Mapping[str, Any] | None = None,
        colors: Mapping[str, tuple[int, int, int]] | None = None,
        layer: str = "detections",
        decimals: int = 7,
    ) -> None:
        self.path = check_vector_output(path)
        self.crs, self.layer, self.decimals = crs, layer, decimals
        self.metadata, self.colors = dict(metadata or {}), colors
        self.num_objects = 0
        self._driver = FORMATS[self.path.suffix.lower()]
        self._pending: list[tuple[np.ndarray, dict[str, np.ndarray]]] = []
        self._num_pending = 0
        self._has_begun = False
        self._stack = ExitStack()

    def __enter__(self) -> VectorWriter:
        # Popped only when both are open, so that an error in between removes what is there.
        with _one_sentence(self.path), ExitStack() as stack:
            self._target = stack.enter_context(replaced_file(self.path))
            self._body = stack.enter_context(_scratch(self._target, _ENDINGS[self._driver]))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: Any) -> None:
        if kind is not None:
            self._stack.__exit__(kind, *rest)  # drops the unfinished file, keeps an old one
            return

        with _one_sentence(self.path):
            with self._stack:
                self._flush(everything=True)
                self._finish()
            if self._driver not in ("GPKG", "GeoJSON"):
                sidecar = self.path.with_name(self.path.name + SIDECAR_ENDING)
                write_atomically(sidecar, json.dumps(self._description(), indent=1) + "\n")

    def add(self, polygons: np.ndarray, columns: Mapping[str, Any]) -> None:
        """Add objects.

        Args:
            polygons: (N, 4, 2) x, y of ``crs``, corners around the object.
            columns: name -> N values, numbers or texts; the same names, in the same order, in each
                call.

        Raises:
            ValueError: a column has another length, a name differs, or a corner is not finite.
            VectorFileError: the file cannot be written.
        """
        polygons = np.asarray(polygons, dtype=np.float64).reshape(-1, 4, 2)
        arrays = {name: _column(values) for name, values in columns.items()}
        for name, values in arrays.items():
            if len(values) != len(polygons):
                raise ValueError(f"{len(polygons)} polygons, but {len(values)} values of {name}")
        if self._pending and list(arrays) != list(self._pending[0][1]):
            raise ValueError(f"columns {list(arrays)} differ from {list(self._pending[0][1])}")
        if not np.isfinite(polygons).all():
            raise ValueError("a corner has no coordinates; leave such objects out, and count them")

        self._pending.append((polygons, arrays))
        self._num_pending += len(polygons)
        self.num_objects += len(polygons)
        if self._num_pending >= _PORTION and self._driver != "FlatGeobuf":
            with _one_sentence(self.path):
                self._flush(everything=False)

    def _flush(self, everything: bool) -> None:
        """Write portions of a fixed size; the rest, or an empty layer, only at the end."""
        if not self._pending:
            if everything and not self._has_begun:
                self._write(np.zeros((0, 4, 2)), {})
            return

        names = list(self._pending[0][1])
        polygons = np.concatenate([polygons for polygons, _ in self._pending])
        columns = {
            name: np.concatenate([columns[name] for _, columns in self._pending]) for name in names
        }
        size = max(len(polygons), 1) if self._driver == "FlatGeobuf" else _PORTION
        start = 0
        while len(polygons) - start >= size or (everything and start < max(len(polygons), 1)):
            part = slice(start, start + size)
            if start == 0 or start < len(polygons) or not self._has_begun:
                self._write(polygons[part], {name: columns[name][part] for name in names})
            start += size

        # An empty remainder is kept too: it knows the columns.
        self._pending = [
            (polygons[start:], {name: values[start:] for name, values in columns.items()})
        ]
        self._num_pending = len(self._pending[0][0])

    def _write(self, polygons: np.ndarray, columns: dict[str, np.ndarray]) -> None:
        """Append objects to the body of the file."""
        crs = self.crs
        # RFC 7946 knows longitude and latitude only.
        if self._driver.startswith("GeoJSON") and crs is not None:
            polygons, crs = transform_points(polygons, crs, LONGITUDE_LATITUDE), LONGITUDE_LATITUDE
        is_first, self._has_begun = not self._has_begun, True
        if self._driver == "CSV":
            _append_csv(self._body, polygons, columns, is_first)
        elif is_first or len(polygons):
            self._write_with_gdal(polygons, columns, crs, is_first)

    def _write_with_gdal(
        self,
        polygons: np.ndarray,
        columns: dict[str, np.ndarray],
        crs: str | None,
        is_first: bool,
    ) -> None:
        pyogrio = geo_library("pyogrio")
        options: dict[str, Any] = {}
        if self._driver == "GPKG" and is_first:
            kept = {"rsd2": json.dumps(self._description(), sort_keys=True)}
            options = {"layer_metadata": kept, "layer_options": {"SPATIAL_INDEX": "YES"}}
        elif self._driver.startswith("GeoJSON"):
            options = {"layer_options": {"RS": "NO", "COORDINATE_PRECISION": str(self.decimals)}}

        shapes = shapely.polygons(polygons)
        if self._driver.startswith("GeoJSON") and crs is not None:
            shapes = _cut_at_date_line(shapes)
        # GDAL stamps a GeoPackage with the time of writing, which would change its bytes.
        pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": _DATE})
        try:
            with warnings.catch_warnings():
                # A layer in pixels is meant to have no coordinate system.
                warnings.filterwarnings("ignore", "'crs' was not provided", UserWarning)
                warnings.filterwarnings("ignore", "No SRS set on layer", RuntimeWarning)
                geo_library("pyogrio.raw").write(
                    str(self._body),
                    geometry=shapely.to_wkb(shapes),
                    field_data=list(columns.values()),
                    fields=list(columns),
                    layer=self.layer,
                    # Lines can be appended; a collection is made of them in the end.
                    driver="GeoJSONSeq" if self._driver == "GeoJSON" else self._driver,
                    geometry_type="Unknown" if self._driver.startswith("GeoJSON") else "Polygon",
                    crs=crs,
                    append=not is_first,
                    **options,
                )
        finally:
            pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": None})

    def _finish(self) -> None:
        """Turn the body into the file."""
        if self._driver == "GPKG" and self.colors is not None:
            write_layer_style(self._body, self.layer, self.colors)
        if self._driver != "GeoJSON":
            os.replace(self._body, self._target)
            return

        head = {"type": "FeatureCollection", "name": self.layer, "metadata": self._description()}
        with self._target.open("w", encoding="utf-8") as target:
            target.write(json.dumps(head)[:-1] + ', "features": [\n')
            with self._body.open(encoding="utf-8") as body:
                for number, line in enumerate(body):
                    target.write((",\n" if number else "") + line.rstrip("\n"))
            target.write("\n]}\n")

    def _description(self) -> dict[str, Any]:
        places = "pixels of the scene, y down" if self.crs is None else "coordinates, x before y"
        return {"places": places, **self.metadata}


def read_vector_file(
    path: str | Path, layer: str | None = None
) -> tuple[np.ndarray, dict[str, np.ndarray], str | None]:
    """Read the objects of a vector file.

    Args:
        path: path of any vector file that GDAL knows.
        layer: name of the layer; None takes the only one, or the first one that has geometries.

    Returns:
        (N,) shapely geometries, None where an object has none; columns, name -> (N,) values; the
        coordinate system as text, or None.

    Raises:
        FileNotFoundError: there is no such file.
        VectorFileError: GDAL cannot read it, or there is no such layer.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"There is no vector file {path}; correct the path.")
    if not path.stat().st_size and FORMATS.get(path.suffix.lower()) == "GeoJSONSeq":
        return np.zeros(0, dtype=object), {}, LONGITUDE_LATITUDE  # no lines, no objects
    pyogrio = geo_library("pyogrio")
    try:
        layers = pyogrio.list_layers(path).tolist()
        names = [name for name, kind in layers if kind is not None]
        if not names or (layer is not None and layer not in names):
            wanted = "geometries" if layer is None else f"layer {layer!r}"
            raise VectorFileError(f"{path} has no {wanted}; its layers are {layers}")
        meta, _, geometry, values = geo_library("pyogrio.raw").read(
            path, layer=layer or names[0], force_2d=True
        )
    except pyogrio.errors.DataSourceError as error:
        raise VectorFileError(
            f"{path} is not a vector file that GDAL can read ({_first_line(error)})"
        ) from error

    return shapely.from_wkb(geometry), dict(zip(meta["fields"], values)), meta["crs"]


def read_metadata(path: str | Path) -> dict[str, Any]:
    """Read the metadata that :class:`VectorWriter` stored with the objects of a file.

    Args:
        path: path of the vector file.

    Returns:
        The metadata; empty if there are none.

    Raises:
        VectorFileError: the file is not of a known format.
    """
    path = Path(path)
    driver = FORMATS.get(path.suffix.lower())
    if driver is None:
        raise VectorFileError(f"{path} has no ending of a vector file")
    if driver == "GPKG":
        pyogrio = geo_library("pyogrio")
        layer = next(name for name, kind in pyogrio.list_layers(path) if kind is not None)
        kept = pyogrio.read_info(path, layer=layer).get("layer_metadata") or {}
        return json.loads(kept.get("rsd2", "{}"))

    if driver == "GeoJSON":
        return json.loads(path.read_text(encoding="utf-8")).get("metadata", {})
    sidecar = path.with_name(path.name + SIDECAR_ENDING)
    return json.loads(sidecar.read_text(encoding="utf-8")) if sidecar.is_file() else {}


def _column(values: Any) -> np.ndarray:
    """Return a one-dimensional array of numbers, or of texts as objects."""
    array = np.asarray(values)
    if array.ndim != 1:
        raise ValueError(f"a column must be one-dimensional, got shape {array.shape}")
    return array.astype(object) if array.dtype.kind in "US" else array


def _cut_at_date_line(shapes: np.ndarray) -> np.ndarray:
    """Cut polygons of longitudes and latitudes in two at 180 degrees (RFC 7946, section 3.1.9)."""
    west, _, east, _ = shapely.bounds(shapes).T
    crossing = east - west > 180
    for index in np.flatnonzero(crossing):
        ring = shapely.get_coordinates(shapes[index])
        ring[:, 0] %= 360  # now the date line is an ordinary meridian
        whole = shapely.Polygon(ring)
        parts = [
            shapely.intersection(whole, shapely.box(0, -90, 180, 90)),
            shapely.transform(
                shapely.intersection(whole, shapely.box(180, -90, 360, 90)), lambda p: p - (360, 0)
            ),
        ]
        shapes[index] = shapely.MultiPolygon([part for part in parts if part.area > 0])

    return shapes


def _append_csv(
    path: Path, polygons: np.ndarray, columns: dict[str, np.ndarray], with_head: bool
) -> None:
    texts = shapely.to_wkt(shapely.polygons(polygons), rounding_precision=9)
    with path.open("a", encoding="utf-8", newline="") as stream:
        rows = csv.writer(stream, lineterminator="\n")
        if with_head:
            rows.writerow(["WKT", *columns])

        # NaN is the only value that differs from itself; an empty field says "unknown".
        fields = [["" if v != v else v for v in values.tolist()] for values in columns.values()]
        rows.writerows(zip(texts, *fields))


@contextmanager
def _scratch(target: Path, ending: str) -> Iterator[Path]:
    """Yield a file for GDAL to write beside the target; GDAL knows formats by their endings."""
    path = target.with_name(target.name + ending)
    path.unlink(missing_ok=True)  # an earlier, killed run must not be appended to
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


@contextmanager
def _one_sentence(path: Path) -> Iterator[None]:
    """Name the file in errors of GDAL, SQLite or the system."""
    errors = geo_library("pyogrio.errors")
    try:
        yield
    except (errors.DataSourceError, errors.DataLayerError, sqlite3.Error, OSError) as error:
        free = shutil.disk_usage(path.parent).free / 2**20 if path.parent.is_dir() else 0
        raise VectorFileError(
            f"{path} cannot be written ({_first_line(error)}; {free:.0f} MB are free there); "
            "choose another output"
        ) from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".;")
