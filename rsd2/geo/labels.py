"""Labels and areas with coordinates, as pixels of a scene.

Shapes: N objects; polygons (N, 4, 2) x, y in pixels of the scene.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import shapely

from .georeference import LONGITUDE_LATITUDE, Georeference, transform_points
from .vector_files import VectorFileError, read_vector_file

_LEAST_AREA = 1e-3
"""Square pixels below which a polygon is no object, as in DOTA's label files."""

_AREA_STEPS = 64
"""Parts of the longer side of an area's envelope, because straight lines of one system are curves
of another."""


@dataclass(frozen=True)
class SceneLabels:
    """Objects of a scene, and counts of the dropped ones.

    Attributes:
        polygons: (N, 4, 2) float64 pixels, clockwise on the screen. A quadrilateral of the file
            keeps its corners and its first one; any other shape becomes the smallest rectangle
            around it.
        names: N classes.
        num_outside: objects that lie wholly outside the scene.
        num_without_class: objects whose class is empty.
        num_without_area: points, lines, empty shapes, and polygons of no area.
    """

    polygons: np.ndarray
    names: list[str]
    num_outside: int = 0
    num_without_class: int = 0
    num_without_area: int = 0

    def __len__(self) -> int:
        """Return the number of objects."""
        return len(self.names)

    def describe(self) -> str:
        """Say how many objects there are, and how many were dropped and why.

        Returns:
            A line.
        """
        left_out = {
            "outside the scene": self.num_outside,
            "without a class": self.num_without_class,
            "without an area": self.num_without_area,
        }
        parts = [f"{number} {why}" for why, number in left_out.items() if number]
        return f"{len(self)} objects" + (f"; left out: {', '.join(parts)}" if parts else "")


def read_scene_labels(
    path: str | Path,
    georeference: Georeference,
    size: tuple[int, int],
    class_column: str | None = "class",
    *,
    class_name: str = "object",
    layer: str | None = None,
    in_pixels: bool = False,
) -> SceneLabels:
    """Read labels in any coordinate system as quadrilaterals in pixels of a scene.

    Parts of a multipolygon are separate objects, except for two parts of one box that the date line
    has cut.

    Args:
        path: path of a vector file that GDAL knows, like GeoPackage, GeoJSON or FlatGeobuf.
        georeference: georeference of the scene.
        size: H, W of the scene.
        class_column: name of the column with the classes; None if all are ``class_name``.
        class_name: class of all objects, if there is no ``class_column``.
        layer: layer of the file; None for its only one.
        in_pixels: the coordinates are pixels of the scene, whatever the file says; GeoJSON cannot
            express that.

    Returns:
        The labels, in the order of the file.

    Raises:
        FileNotFoundError: there is no such file.
        VectorFileError: the file cannot be read, or has no such column.
        GeoreferenceError: the scene has no coordinates, but the labels have.
    """
    shapes, columns, crs = read_vector_file(path, layer)
    if class_column is not None and len(shapes) and class_column not in columns:
        raise VectorFileError(
            f"{path} has no column {class_column!r} for the classes; it has "
            f"{', '.join(columns) or 'none'}"
        )

    # An empty layer has no columns, and that is no error.
    polygons, owners = to_quadrilaterals(shapes, georeference, crs, in_pixels=in_pixels)
    names = [class_name] * len(polygons)
    if class_column is not None:
        values = columns.get(class_column, np.zeros(0))
        names = [_class_text(values[owner]) for owner in owners]
    return keep_objects(polygons, names, size)[1]


def to_quadrilaterals(
    shapes: np.ndarray, georeference: Georeference, crs: str | None, *, in_pixels: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Turn shapes in coordinates into quadrilaterals in pixels of a scene.

    Args:
        shapes: (N,) shapely geometries, None where an object has none.
        georeference: georeference of the scene.
        crs: coordinate system of the shapes; None for the scene's own.
        in_pixels: the coordinates are pixels of the scene, whatever ``crs`` says.

    Returns:
        (P, 4, 2) float64 pixels of the parts of all shapes, zeros for what is no polygon; (P,)
        int64 index of the shape of each part.

    Raises:
        GeoreferenceError: the scene has no coordinates, but the shapes have.
    """
    shapes, owners = _split_parts(shapes)
    corners, is_shape = _to_pixels(shapes, georeference, None if in_pixels else crs, in_pixels)
    polygons = np.array([quadrilateral(points) for points in corners]).reshape(-1, 4, 2)
    polygons[~is_shape] = 0
    return polygons, owners


def read_area(
    path: str | Path,
    georeference: Georeference,
    size: tuple[int, int],
    layer: str | None = None,
) -> shapely.Geometry:
    """Read an area of interest.

    Args:
        path: path of a vector file with one or more polygons.
        georeference: georeference of the scene.
        size: H, W of the scene.
        layer: layer of the file; None for its only one.

    Returns:
        The union of its polygons within the scene, in pixels.

    Raises:
        FileNotFoundError: there is no such file.
        VectorFileError: the file cannot be read, or the area does not meet the scene.
        GeoreferenceError: the scene has no coordinates, but the area has.
    """
    shapes, _, crs = read_vector_file(path, layer)
    shapes, _ = _split_parts(shapes)
    is_area = np.array([shape.geom_type == "Polygon" for shape in shapes], dtype=bool)
    shapes = shapes[is_area]
    if not len(shapes):
        raise VectorFileError(f"{path} holds no polygon; draw the area of interest as one")

    # Fine steps, because straight lines of one system are curves in another.

    west, south, east, north = shapely.total_bounds(shapes)
    step = max(east - west, north - south) / _AREA_STEPS
    fine = shapely.segmentize(shapes, step) if step > 0 else shapes
    corners, is_shape = _to_pixels(fine, georeference, crs, in_pixels=False)

    rings = [shapely.Polygon(points) for points, good in zip(corners, is_shape) if good]
    height, width = size
    union = shapely.union_all(shapely.make_valid(np.array(rings, dtype=object)))
    area = shapely.intersection(union, shapely.box(0, 0, width, height))
    if not area.area > 0:
        raise VectorFileError(
            f"the area of {path} ({_range(west, east)}, {_range(south, north)}) does not meet the "
            f"scene {georeference.name} ({_scene_range(georeference, size, crs)}); check both"
        )

    return area


def _split_parts(shapes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return shapes (P,) that are no collections, and the index (P,) of the object of each."""
    parts: list[shapely.Geometry] = []
    owners: list[int] = []
    for owner, shape in enumerate(shapes):
        if shape is None or shape.is_empty:
            inner = [shapely.Point()]  # counted as without an area
        else:
            inner = _join_at_date_line(list(getattr(shape, "geoms", [shape])))
        parts += inner
        owners += [owner] * len(inner)

    # Filled in place, because np.array would guess a shape from the items.
    array = np.empty(len(parts), dtype=object)
    array[:] = parts
    return array, np.array(owners, dtype=np.int64)


def _join_at_date_line(parts: list[shapely.Geometry]) -> list[shapely.Geometry]:
    """Rejoin a polygon that was cut in two at 180 degrees (RFC 7946, section 3.1.9)."""
    # Each part ends at 180 degrees, one on either side; all other pairs are separate objects.
    if len(parts) != 2 or {part.bounds[0] for part in parts} & {-180.0} == set():
        return parts
    west = next(part for part in parts if part.bounds[0] == -180.0)
    east = next(part for part in parts if part is not west)
    if east.bounds[2] != 180.0:
        return parts
    moved = shapely.transform(west, lambda points: points + (360.0, 0.0))

    # The cut itself leaves two corners that the box does not have.
    joined = shapely.simplify(shapely.union(east, moved), 1e-7)
    return [joined] if joined.geom_type == "Polygon" else parts


def _to_pixels(
    shapes: np.ndarray, georeference: Georeference, crs: str | None, in_pixels: bool
) -> tuple[list[np.ndarray], np.ndarray]:
    """Return outer corners (k, 2) of each shape in pixels, not closed, and which are polygons."""
    # Outer rings only: holes of a box mean nothing.
    rings = [
        shapely.get_coordinates(shapely.get_exterior_ring(shape))[:-1]
        if shape.geom_type == "Polygon"
        else np.zeros((0, 2))
        for shape in shapes
    ]
    points = np.concatenate([np.zeros((0, 2)), *rings])
    # Pixels stay as they are; so do coordinates that neither side can interpret.
    if in_pixels or (crs is None and georeference.crs is None):
        pass
    elif crs is None:
        points = georeference.from_crs(points)  # a file that does not say: the scene's own
    else:
        points = georeference.from_other_crs(points, crs)

    corners = np.split(points, np.cumsum([len(ring) for ring in rings])[:-1]) if rings else []
    good = [len(ring) >= 3 and bool(np.isfinite(ring).all()) for ring in corners]
    return corners, np.array(good, dtype=bool)


def quadrilateral(points: np.ndarray) -> np.ndarray:
    """Describe an object by four corners.

    Args:
        points: (k, 2) its outer corners, or any points of it.

    Returns:
        (4, 2) corners, clockwise on the screen: the points themselves if they are four, else the
        smallest rectangle around them; zeros if it has no area.
    """
    if len(points) < 3 or not np.isfinite(points).all():
        return np.zeros((4, 2))
    # The smallest rectangle: a rotated box is what the model learns.
    if len(points) != 4:
        rectangle = shapely.oriented_envelope(shapely.MultiPoint(points))
        if rectangle.geom_type != "Polygon":
            return np.zeros((4, 2))
        points = shapely.get_coordinates(rectangle)[:4]

    if _signed_area(points[None])[0] < 0:
        # The first corner keeps its meaning; only the sense changes.
        points = np.concatenate([points[:1], points[:0:-1]])
    return points


def keep_objects(
    polygons: np.ndarray, names: Sequence[str], size: tuple[int, int]
) -> tuple[np.ndarray, SceneLabels]:
    """Keep the objects of a scene, and count the others by reason.

    Args:
        polygons: (N, 4, 2) pixels of the scene, clockwise on the screen; zeros for none.
        names: N classes; empty for none.
        size: H, W of the scene.

    Returns:
        (N,) bool, True for kept objects, and the labels of those.
    """
    height, width = size
    polygons = np.asarray(polygons, dtype=np.float64).reshape(-1, 4, 2)
    has_area = _signed_area(polygons) > _LEAST_AREA
    has_class = np.array([bool(name) for name in names], dtype=bool)

    # Only objects with area are compared with the scene; the others are counted as such.
    meets = np.zeros(len(polygons), dtype=bool)
    meets[has_area] = shapely.intersects(
        shapely.polygons(polygons[has_area]), shapely.box(0, 0, width, height)
    )

    keep = has_area & has_class & meets
    return keep, SceneLabels(
        polygons=polygons[keep],
        names=[name for name, kept in zip(names, keep) if kept],
        num_outside=int((has_area & ~meets).sum()),
        num_without_class=int((has_area & meets & ~has_class).sum()),
        num_without_area=int((~has_area).sum()),
    )


def _signed_area(polygons: np.ndarray) -> np.ndarray:
    """Return areas (N,), positive if the corners (N, 4, 2) run clockwise on the screen."""
    x, y = polygons[..., 0], polygons[..., 1]
    return (x * np.roll(y, -1, axis=1) - np.roll(x, -1, axis=1) * y).sum(axis=1) / 2


def _class_text(value: object) -> str:
    """Return the name of a class; empty for a missing value."""
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return ""

    # Some formats store the numbers of classes as floating-point ones.
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value).strip()


def _range(low: float, high: float) -> str:
    return f"{low:.6g} to {high:.6g}"


def _scene_range(georeference: Georeference, size: tuple[int, int], crs: str | None) -> str:
    """Return the envelope of the scene in the area's coordinate system, for messages."""
    height, width = size
    corners = georeference.to_crs(np.array([(0, 0), (width, 0), (width, height), (0, height)]))
    if georeference.crs is not None:
        corners = transform_points(corners, georeference.crs, crs or LONGITUDE_LATITUDE)
    low, high = corners.min(axis=0), corners.max(axis=0)
    return f"{_range(low[0], high[0])}, {_range(low[1], high[1])}"
