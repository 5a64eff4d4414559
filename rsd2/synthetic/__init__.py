"""Synthetic overhead scenes and videos: demo, test bed and benchmark.

They are written in DOTA's, TinyPerson's and RsCarData's formats.
"""

from rsd2.data.class_orders import SYNTHETIC_CLASSES
from rsd2.data.formats.rscardata import RSCARDATA_SPLITS

from .georeferenced import PlaceConfig, write_georeferenced_scenes
from .scenes.scene import (
    DEFAULT_THEME_WEIGHTS,
    VISIBLE_SHARE,
    Scene,
    SceneConfig,
    SceneObject,
    draw_scene,
)
from .scenes.site import LEAST_SHARE
from .tiny.scene import TINY_CATEGORIES, TinyObject, TinyScene, TinySceneConfig, draw_tiny_scene
from .tiny.writer import describe_annotations, write_tiny_scenes
from .video.config import VideoConfig
from .video.scene import VideoLabel, VideoPlan, VideoRenderer, plan_video
from .video.statistics import StatisticRow, format_statistics, measure_videos
from .video.writer import make_record, read_records, write_videos
from .writer import METRES_PER_UNIT, format_labels, scene_name, write_dota_scenes

__all__ = [
    "DEFAULT_THEME_WEIGHTS",
    "LEAST_SHARE",
    "METRES_PER_UNIT",
    "PlaceConfig",
    "RSCARDATA_SPLITS",
    "SYNTHETIC_CLASSES",
    "TINY_CATEGORIES",
    "VISIBLE_SHARE",
    "VideoConfig",
    "VideoLabel",
    "VideoPlan",
    "VideoRenderer",
    "Scene",
    "SceneConfig",
    "SceneObject",
    "StatisticRow",
    "TinyObject",
    "TinyScene",
    "TinySceneConfig",
    "describe_annotations",
    "draw_scene",
    "draw_tiny_scene",
    "format_labels",
    "format_statistics",
    "make_record",
    "measure_videos",
    "plan_video",
    "read_records",
    "scene_name",
    "write_dota_scenes",
    "write_georeferenced_scenes",
    "write_tiny_scenes",
    "write_videos",
]
