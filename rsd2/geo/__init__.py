"""Georeferenced rasters and vector files: from pixels to coordinates and metres, and back.

Needs rasterio, pyogrio and pyproj, the extra ``geo``; they are imported when they are first used.
"""

from .georeference import Georeference, GeoreferenceError, GroundMeasures
from .grid import Grid
from .radiometry import Radiometry, RadiometryError
from .raster import Raster, RasterWindow
from .raster_files import RasterError

__all__ = [
    "Georeference",
    "GeoreferenceError",
    "Grid",
    "GroundMeasures",
    "Radiometry",
    "RadiometryError",
    "Raster",
    "RasterError",
    "RasterWindow",
]
