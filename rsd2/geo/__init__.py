"""Georeferenced rasters and vector files: from pixels to coordinates and metres, and back.

Needs rasterio, pyogrio and pyproj, the extra ``geo``; they are imported when they are first used.
"""

from .georeference import Georeference, GeoreferenceError, GroundMeasures
from .grid import Grid
from .labels import SceneLabels, read_area, read_scene_labels
from .radiometry import Radiometry, RadiometryError
from .raster import Raster, RasterWindow
from .raster_files import RasterError
from .vector_files import VectorFileError, VectorWriter, check_vector_output, read_vector_file

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
    "SceneLabels",
    "VectorFileError",
    "VectorWriter",
    "check_vector_output",
    "read_area",
    "read_scene_labels",
    "read_vector_file",
]
