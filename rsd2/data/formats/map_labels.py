"""Labels on maps: polygons in coordinates of the ground, which the rasters turn into pixels.

One file holds the objects of all rasters of a folder. Files that rsd2 wrote name the image of each
object; of other files, each raster shows the objects that meet it, and a file with the name of a
raster belongs to that raster alone. Needs the extra ``geo``.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import shapely
from shapely.geometry import shape as to_shape

from rsd2.data.file_names import list_data_files
from rsd2.geo.georeference import LONGITUDE_LATITUDE, Georeference, transform_points
from rsd2.geo.labels import keep_objects, to_quadrilaterals
from rsd2.geo.raster import Raster
from rsd2.geo.vector_files import VectorWriter, read_metadata, read_vector_file
from rsd2.io.files import make_output_folder

from .foreign import describe_folder
from .label_entries import (
    ENTRY_ERRORS,
    EntryError,
    LabelPage,
    ObjectRow,
    add_entry_problem,
    clean_name,
    parse_score,
)
from .label_format import LabelFormat, LabelledImage, make_image
from .label_images import ImageFolder, stem_of
from .label_parsing import open_json
from .label_report import LabelReport, show_progress
from .values import parse_difficulty

_DECIMALS = 13
"""Of degrees, for the 1e-4 pixels that labels must keep; RFC 7946 recommends 7, a centimetre."""

_NEEDS_FOLDER = "{} places objects on the ground; name the folder of the rasters that show them."


class MapFile(NamedTuple):
    """What a file holds.

    Attributes:
        entries: shape of each object, as the format states it, and its properties.
        crs: coordinate system of the shapes; None if the file does not say.
        images: names of the images that were labelled, which rsd2 lists in the metadata.
    """

    entries: Sequence[tuple[Any, Mapping[str, Any]]] = ()
    crs: str | None = None
    images: Sequence[Any] = ()


@dataclass(frozen=True)
class _Feature:
    """An object of a file: its shape in coordinates, and its image if the file says it."""

    shape: shapely.Geometry
    name: str
    difficult: int
    score: float | None
    image: str
    where: str


class MapLabels(LabelFormat):
    """Base of the formats whose objects are in coordinates of the ground.

    Attributes:
        ending: ending of the files, lower case, with dot.
    """

    holds = frozenset({"difficult", "cut", "score", "quadrilateral"})
    ending: ClassVar[str]

    def __init__(self, class_column: str = "class") -> None:
        """Choose where the class of an object stands.

        Args:
            class_column: name of the property or column.
        """
        self.class_column = class_column

    @abstractmethod
    def read_file(self, path: Path, report: LabelReport) -> MapFile:
        """Read a file.

        Args:
            path: path of the file.
            report: report that gets what cannot be read.

        Returns:
            its content; an empty one if the file cannot be read.
        """

    def _read_all(
        self, path: Path, folder: ImageFolder | None, classes: tuple[str, ...], report: LabelReport
    ) -> list[LabelledImage]:
        if folder is None:
            raise ValueError(_NEEDS_FOLDER.format(self.title))
        files = [path]
        if path.is_dir():
            names = [name for name in list_data_files(path) if name.lower().endswith(self.ending)]
            files = [path / name for name in sorted(names)]
        if not files:
            raise ValueError(f"There is no file of {self.title} in {path}. {describe_folder(path)}")

        rasters = _open_rasters(folder, report)
        rows: dict[str, list[ObjectRow]] = {name: [] for name in rasters}
        file_of: dict[str, Path] = {}
        for file in files:
            report.label_files += 1
            self._read_file(file, folder, rasters, rows, file_of, report)

        found = []
        for name, (_, size) in rasters.items():
            if name not in file_of:
                where = folder.folder / name
                report.add("image_without_label", where, None, f"no object of {path}", "kept")
            file, page = file_of.get(name, Path()), LabelPage(rows[name], name, size)
            image = make_image(name, size, page, file, classes, report)
            if image is not None:
                label_file = str(file) if name in file_of else ""
                found.append(LabelledImage(name, *size, image.objects, label_file))
        return found

    def _read_file(
        self,
        path: Path,
        folder: ImageFolder,
        rasters: Mapping[str, tuple[Georeference, tuple[int, int]]],
        rows: dict[str, list[ObjectRow]],
        file_of: dict[str, Path],
        report: LabelReport,
    ) -> None:
        """Add the objects of a file to the rasters that show them."""
        content = self.read_file(path, report)
        features = list(self._parse(content.entries, path, report))

        # An image that the file lists without any object is labelled, and shows nothing.
        listed = map(folder.find, map(str, content.images))
        file_of |= {name: path for name in listed if name is not None}

        free = [one for one in features if not one.image]
        owned: dict[str, list[_Feature]] = {}
        for one in (one for one in features if one.image):
            known = folder.find(one.image)
            if known is None:
                message = f"{one.where}: no image {one.image!r} in {folder.folder}"
                report.add("absent_image", path, None, message)
            elif known in rasters:
                owned.setdefault(known, []).append(one)

        # A file beside others is meant for the scene of its name.
        same = [name for name in rasters if stem_of(name) == stem_of(path.stem)]
        placed: set[int] = set()
        for name in show_progress(rasters, "raster"):
            georeference, size = rasters[name]
            for own, is_free in ((owned.get(name, []), False), (free, True)):
                if not own or (is_free and same and name not in same):
                    continue
                shapes = np.empty(len(own), dtype=object)
                shapes[:] = [one.shape for one in own]
                polygons, owners = to_quadrilaterals(shapes, georeference, content.crs)
                names = [own[owner].name for owner in owners]
                keep = keep_objects(polygons, names, size)[0] if is_free else owners >= 0

                for polygon, owner in zip(polygons[keep], owners[keep].tolist()):
                    one = own[owner]
                    corners = polygon.reshape(-1).tolist()
                    rows[name].append(ObjectRow(corners, one.name, one.difficult, one.score))
                    file_of[name] = path
                    placed.add(id(one))

        for one in (one for one in free if id(one) not in placed):
            message = f"{one.where} lies on none of the {len(same or rasters)} rasters"
            report.add("absent_image", path, None, message)

    def _parse(
        self,
        entries: Sequence[tuple[Any, Mapping[str, Any]]],
        path: Path,
        report: LabelReport,
    ) -> Iterator[_Feature]:
        for index, (shape, properties) in enumerate(entries):
            where = f"features[{index}]"
            try:
                shape = shape if isinstance(shape, shapely.Geometry) else to_shape(shape)
                if not isinstance(shape, shapely.Polygon | shapely.MultiPolygon) or shape.is_empty:
                    raise EntryError("label_shape", f"its geometry is {shape.geom_type}")
                if self.class_column not in properties:
                    known = ", ".join(properties) or "none"
                    message = f"it has no class {self.class_column!r}; its properties are {known}"
                    raise EntryError("label_entry", message)
                yield _Feature(
                    shape,
                    clean_name(properties[self.class_column]),
                    parse_difficulty(_value(properties, "difficult")),
                    parse_score(_value(properties, "score")),
                    str(_value(properties, "image") or ""),
                    where,
                )
            except (*ENTRY_ERRORS, shapely.errors.ShapelyError) as error:
                add_entry_problem(report, path, None, where, error)

    def _write_all(
        self,
        path: Path,
        images: Sequence[LabelledImage],
        classes: tuple[str, ...],
        folder: Path | None,
    ) -> None:
        if folder is None:
            raise ValueError(_NEEDS_FOLDER.format(self.title))

        places = [_place_of(folder / image.file_name, image) for image in images]
        systems = {str(one.crs) for one in places}
        # One layer has one coordinate system, which rasters of several zones do not share.
        crs = systems.pop() if len(systems) == 1 else LONGITUDE_LATITUDE
        has_scores = any(one.score is not None for image in images for one in image.objects)

        make_output_folder(path.parent)
        metadata = {"images": [image.file_name for image in images]}
        with VectorWriter(
            path, crs=crs, metadata=metadata, layer="labels", decimals=_DECIMALS
        ) as writer:
            for image, place in zip(images, places):
                polygons = np.array([one.polygon for one in image.objects]).reshape(-1, 4, 2)
                polygons = place.to_crs(polygons)
                if place.crs is not None and place.crs != crs:
                    polygons = transform_points(polygons, place.crs, crs)
                columns: dict[str, Any] = {
                    "class": np.array([one.name for one in image.objects], dtype=object),
                    "image": np.full(len(polygons), image.file_name, dtype=object),
                    "difficult": np.array([one.difficult for one in image.objects], np.int64),
                }
                if has_scores:
                    columns["score"] = np.array([one.score for one in image.objects], np.float64)
                writer.add(polygons, columns)


class GeoJson(MapLabels):
    """``features`` with polygons in longitude and latitude, or in the file's own ``crs``."""

    name = "geojson"
    title = "GeoJSON"
    kinds = ("GeoJSON",)
    ending = ".geojson"

    def read_file(self, path: Path, report: LabelReport) -> MapFile:
        """Read a file, see `MapLabels.read_file`."""
        content = open_json(path, self.kinds, report)
        if content is None:
            return MapFile()
        if not isinstance(content["features"], list):
            report.add("label_entry", path, None, "features is no list")
            return MapFile()

        entries = []
        for index, feature in enumerate(content["features"]):
            try:
                entries.append((feature["geometry"], feature["properties"] or {}))
            except ENTRY_ERRORS as error:
                add_entry_problem(report, path, None, f"features[{index}]", error)

        metadata = content.get("metadata")
        return MapFile(entries, _system_of(content), _images_of(metadata))


class GeoPackage(MapLabels):
    """The first layer with geometries of a GeoPackage."""

    name = "gpkg"
    title = "GeoPackage"
    kinds = ("GeoPackage",)
    ending = ".gpkg"

    def read_file(self, path: Path, report: LabelReport) -> MapFile:
        """Read a file, see `MapLabels.read_file`."""
        shapes, columns, crs = read_vector_file(path)
        values = {name: column.tolist() for name, column in columns.items()}
        rows = zip(*values.values()) if values else iter([()] * len(shapes))
        entries = [(shape, dict(zip(values, row))) for shape, row in zip(shapes, rows)]
        return MapFile(entries, crs, _images_of(read_metadata(path)))


def _open_rasters(
    folder: ImageFolder, report: LabelReport
) -> dict[str, tuple[Georeference, tuple[int, int]]]:
    """Return georeference and (height, width) of each readable raster by its name."""
    rasters = {}
    for name in show_progress(folder.names, "raster"):
        try:
            with Raster(folder.folder / name) as raster:
                rasters[name] = (raster.georeference, (raster.height, raster.width))
        except (OSError, ValueError) as error:
            report.add("unreadable_image", folder.folder / name, None, str(error))
    return rasters


def _place_of(path: Path, image: LabelledImage) -> Georeference:
    """Return the georeference of an image that is to be written."""
    with Raster(path) as raster:
        size, place = (raster.height, raster.width), raster.georeference
    if place.crs is None or not place.has_coordinates:
        raise ValueError(
            f"{path} has no place on the ground: give it a transform and a coordinate system, for "
            "example with gdal_edit, or write a format in pixels."
        )
    if size != (image.height, image.width):
        raise ValueError(
            f"{path} has {size[1]} x {size[0]} pixels, but its labels are of {image.width} x "
            f"{image.height}; take the image that was labelled."
        )
    return place


def _images_of(metadata: Any) -> Sequence[Any]:
    """Return the images that the writer below listed; files of other programs list none."""
    images = metadata.get("images") if isinstance(metadata, dict) else None
    return images if isinstance(images, list) else ()


def _system_of(content: dict[str, Any]) -> str:
    """Return the coordinate system; RFC 7946 has one alone, older files may name another."""
    system = content.get("crs")
    properties = system.get("properties") if isinstance(system, dict) else None
    name = properties.get("name") if isinstance(properties, dict) else None
    return name if isinstance(name, str) and name else LONGITUDE_LATITUDE


def _value(properties: Mapping[str, Any], key: str) -> Any:
    """Return a property; None for a missing one and for NaN, with which columns mark those."""
    value = properties.get(key)
    return None if isinstance(value, float) and value != value else value
