"""Maps pixels of a scene to coordinates, directions and metres on the ground, and back.

Pixels are continuous: x to the right, y down, (0, 0) the outer corner of the first pixel. Corners
are mapped one by one, because a width, a height and an angle in pixels mean nothing on the ground
where pixels are sheared or not square. Coordinates are always x before y, so longitude before
latitude, whatever order the coordinate system itself prescribes.

Shapes: N objects, polygons (N, 4, 2), corners around the object; ... any leading dimensions.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from .libraries import geo_library

if TYPE_CHECKING:
    from pyproj import Transformer

LONGITUDE_LATITUDE = "EPSG:4326"


class GeoreferenceError(ValueError):
    """Coordinates that cannot be computed; the message names the file and what to do."""


@dataclass(frozen=True)
class GroundMeasures:
    """Sizes and places of N objects on the ground; NaN if the scene has no coordinates.

    Attributes:
        azimuth: (N,) degrees clockwise from true north of the long side, in [0, 180).
        length: (N,) metres of the long side, between the middles of the two short ones.
        width: (N,) metres of the short side.
        area: (N,) square metres.
        longitude: (N,) degrees, longitude of the centre.
        latitude: (N,) degrees, latitude of the centre.
    """

    azimuth: np.ndarray
    length: np.ndarray
    width: np.ndarray
    area: np.ndarray
    longitude: np.ndarray
    latitude: np.ndarray


@dataclass(frozen=True)
class Georeference:
    """How pixels of one scene lie on the ground; can be pickled.

    Attributes:
        name: name of the scene, for messages.
        kind: ``"transform"`` (an affine one), ``"gcps"`` (a polynomial through ground control
            points), ``"rpcs"`` (the sensor's rational polynomials, at the scene's mean height) or
            ``"pixels"`` (no coordinates: pixels stay pixels).
        crs: text of the coordinate system; None if it is unknown.
        transform: a, b, c, d, e, f of x = a column + b row + c and y = d column + e row + f.
        points: ground control points (column, row, x, y, z) of ``"gcps"``.
        rpcs: the coefficients of ``"rpcs"``, as rasterio gives them.
        note: a sentence on what the coordinates lack; empty if they are complete.
    """

    name: str
    kind: str = "pixels"
    crs: str | None = None
    transform: tuple[float, ...] = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
    points: tuple[tuple[float, ...], ...] = ()
    rpcs: Any = field(default=None, repr=False, hash=False)
    note: str = ""

    def __post_init__(self) -> None:
        """Raise if the coordinate system has no longitude and latitude, before any work."""
        if self.kind not in ("transform", "gcps", "rpcs", "pixels"):
            raise ValueError(f"kind must be transform, gcps, rpcs or pixels, got {self.kind!r}")

        a, b, _, d, e, _ = self.transform
        # A singular matrix has no inverse, so no coordinate would lead back to a pixel.
        if not np.isfinite(self.transform).all() or a * e == b * d:
            raise GeoreferenceError(
                f"{self.name}: the transform {self.transform} maps its pixels to a line; correct "
                "it, for example with gdal_edit"
            )

        if self.crs is not None:
            try:
                _transformer(self.crs, LONGITUDE_LATITUDE)
            except geo_library("pyproj.exceptions").ProjError as error:
                reason = str(error).splitlines()[0]
                raise GeoreferenceError(
                    f"{self.name}: its coordinate system {_shorten(self.crs)} has no known "
                    f"relation to longitude and latitude ({reason}); assign the right one, for "
                    "example with gdal_edit -a_srs EPSG:32633"
                ) from error

    @property
    def has_coordinates(self) -> bool:
        """Tell whether longitude, latitude and metres are known."""
        return self.crs is not None

    def to_crs(self, pixels: np.ndarray) -> np.ndarray:
        """Map pixels to the scene's own coordinates.

        Args:
            pixels: (..., 2) x, y in pixels of the scene.

        Returns:
            (..., 2) float64 x, y of ``crs``; the pixels themselves if there are no coordinates.
        """
        x, y = np.moveaxis(np.asarray(pixels, dtype=np.float64), -1, 0)
        if self.kind in ("gcps", "rpcs") and x.size:
            # A point that the sensor's model does not reach is NaN, not an exception.
            with self._fitted() as fitted:
                east, north = fitted.xy(y.ravel(), x.ravel(), offset="ul")
            return _finite(np.stack([np.asarray(east), np.asarray(north)], -1), x.shape)

        a, b, c, d, e, f = self.transform
        return np.stack([a * x + b * y + c, d * x + e * y + f], axis=-1)

    def from_crs(self, coordinates: np.ndarray) -> np.ndarray:
        """Map the scene's own coordinates to pixels: the inverse of :meth:`to_crs`.

        Args:
            coordinates: (..., 2) x, y of ``crs``.

        Returns:
            (..., 2) float64 x, y in pixels of the scene.
        """
        x, y = np.moveaxis(np.asarray(coordinates, dtype=np.float64), -1, 0)
        if self.kind in ("gcps", "rpcs") and x.size:
            with self._fitted() as fitted:
                # rasterio rounds down to whole pixels unless it is given another operation.
                rows, columns = fitted.rowcol(x.ravel(), y.ravel(), op=lambda value: value)
            return _finite(np.stack([np.asarray(columns), np.asarray(rows)], -1), x.shape)

        a, b, c, d, e, f = self.transform
        determinant = a * e - b * d
        x, y = x - c, y - f
        return np.stack([(e * x - b * y) / determinant, (a * y - d * x) / determinant], axis=-1)

    def to_longitude_latitude(self, pixels: np.ndarray) -> np.ndarray:
        """Map pixels to WGS 84.

        Args:
            pixels: (..., 2) x, y in pixels of the scene.

        Returns:
            (..., 2) float64 longitude, latitude in degrees; NaN where there is none, everywhere
            if the scene has no known coordinate system.
        """
        coordinates = self.to_crs(pixels)
        if self.crs is None:
            return np.full_like(coordinates, np.nan)
        return transform_points(coordinates, self.crs, LONGITUDE_LATITUDE)

    def from_other_crs(self, coordinates: np.ndarray, crs: str) -> np.ndarray:
        """Map coordinates of any system to pixels.

        Args:
            coordinates: (..., 2) x, y, longitude before latitude.
            crs: their coordinate system, anything that pyproj understands.

        Returns:
            (..., 2) float64 x, y in pixels of the scene; NaN where the scene's system has no such
            place.

        Raises:
            GeoreferenceError: the scene has no known coordinate system.
        """
        if self.crs is None:
            raise GeoreferenceError(
                f"{self.name} has no coordinate system, so coordinates of {_shorten(crs)} have no "
                "place in it; georeference the scene, or give pixel coordinates"
            )

        return self.from_crs(transform_points(coordinates, crs, self.crs))

    def measure(self, polygons: np.ndarray) -> GroundMeasures:
        """Measure objects on the WGS 84 ellipsoid.

        Lengths and azimuths are those of geodesics. The area is that of the polygon in the
        azimuthal equidistant projection about its own centre, whose error is below a millionth for
        objects of up to 10 km.

        Args:
            polygons: (N, 4, 2) pixels of the scene, corners around the object.

        Returns:
            The measures.
        """
        polygons = np.asarray(polygons, dtype=np.float64).reshape(-1, 4, 2)
        if self.crs is None or not len(polygons):
            nothing = np.full(len(polygons), np.nan)
            return GroundMeasures(*(nothing.copy() for _ in range(6)))

        # Middles are taken in pixels, where sides are straight.
        middles = (polygons + np.roll(polygons, -1, axis=1)) / 2
        center = polygons.mean(axis=1)
        points = np.concatenate([polygons, middles, center[:, None]], axis=1)
        places = self.to_longitude_latitude(points)
        corners, middles, center = places[:, :4], places[:, 4:8], places[:, 8]

        # Which side is the long one is decided on the ground: pixels need not be square there.
        along = _inverse(middles[:, 3], middles[:, 1])[1]
        across = _inverse(middles[:, 0], middles[:, 2])[1]
        is_along = along >= across
        end = np.where(is_along[:, None], middles[:, 1], middles[:, 2])
        azimuth = _inverse(center, end)[0] % 180.0

        directions, distances = _inverse(np.repeat(center[:, None], 4, axis=1), corners)
        east = distances * np.sin(np.radians(directions))
        north = distances * np.cos(np.radians(directions))
        cross = east * np.roll(north, -1, axis=1) - np.roll(east, -1, axis=1) * north
        return GroundMeasures(
            # A tiny negative angle rounds to 180 itself.
            azimuth=np.where(azimuth >= 180.0, 0.0, azimuth),
            length=np.maximum(along, across),
            width=np.minimum(along, across),
            area=np.abs(cross.sum(axis=1)) / 2,
            longitude=center[:, 0],
            latitude=center[:, 1],
        )

    def pixel_size(self, x: float, y: float) -> tuple[float, float] | None:
        """Measure a pixel on the ground.

        Args:
            x: x of its centre, pixels of the scene.
            y: y of its centre, pixels of the scene.

        Returns:
            Metres of one pixel along a row and along a column, > 0; None without coordinates.

        Raises:
            GeoreferenceError: the place has no longitude and latitude.
        """
        if self.crs is None:
            return None

        offsets = np.array([(-0.5, 0), (0.5, 0), (0, -0.5), (0, 0.5)])
        left, right, top, bottom = self.to_longitude_latitude(offsets + (x, y))
        along, across = (
            float(_inverse(start[None], end[None])[1][0])
            for start, end in ((left, right), (top, bottom))
        )
        # NaN here means that every detection would get NaN coordinates: better to stop at once.
        if not all(np.isfinite(size) and size > 0 for size in (along, across)):
            raise GeoreferenceError(
                f"{self.name}: pixel ({x:g}, {y:g}) has no longitude and latitude in "
                f"{_shorten(self.crs)}; the transform or the coordinate system is wrong"
            )

        return along, across

    def _fitted(self) -> Any:
        """Build rasterio's transformer of control points or rational polynomials."""
        transforms = geo_library("rasterio.transform")
        if self.kind == "rpcs":
            # At the mean height: without it, GDAL takes the ellipsoid itself.
            return transforms.RPCTransformer(self.rpcs, RPC_HEIGHT=self.rpcs.height_off)

        point = geo_library("rasterio.control").GroundControlPoint
        points = [point(row=r, col=c, x=x, y=y, z=z) for c, r, x, y, z in self.points]
        return transforms.GCPTransformer(points)


def transform_points(points: np.ndarray, source: str, target: str) -> np.ndarray:
    """Change the coordinate system of points.

    Args:
        points: (..., 2) x, y, longitude before latitude.
        source: coordinate system of the points, anything that pyproj understands.
        target: coordinate system of the result.

    Returns:
        (..., 2) float64; NaN where the target has no such place.

    Raises:
        GeoreferenceError: one of the systems is unknown.
    """
    points = np.asarray(points, dtype=np.float64)
    try:
        transformer = _transformer(source, target)
    except geo_library("pyproj.exceptions").ProjError as error:
        raise GeoreferenceError(
            f"no relation is known between the coordinate systems {_shorten(source)} and "
            f"{_shorten(target)} ({str(error).splitlines()[0]})"
        ) from error

    x, y = transformer.transform(points[..., 0], points[..., 1])
    return _finite(np.stack([np.asarray(x), np.asarray(y)], axis=-1), points.shape[:-1])


@lru_cache(maxsize=32)
def _transformer(source: str, target: str) -> Transformer:
    """Return the transformer of a pair of systems, which takes tens of milliseconds to build."""
    return geo_library("pyproj").Transformer.from_crs(source, target, always_xy=True)


@lru_cache(maxsize=1)
def _ellipsoid() -> Any:
    return geo_library("pyproj").Geod(ellps="WGS84")


def _inverse(start: np.ndarray, end: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return azimuths, degrees, and lengths, metres, of geodesics between points (..., 2)."""
    azimuth, _, distance = _ellipsoid().inv(start[..., 0], start[..., 1], end[..., 0], end[..., 1])
    return np.asarray(azimuth), np.asarray(distance)


def _finite(points: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return points (..., 2) in another shape, with NaN in both numbers if one is infinite."""
    points = points.astype(np.float64).reshape(*shape, 2)
    return np.where(np.isfinite(points).all(axis=-1, keepdims=True), points, np.nan)


def _shorten(crs: str) -> str:
    """Return a short name of a coordinate system whose text may fill a page."""
    quoted = crs.split('"')
    return crs if len(crs) < 40 or len(quoted) < 2 else quoted[1]
