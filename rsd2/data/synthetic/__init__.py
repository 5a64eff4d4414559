"""Synthetic overhead scenes in DOTA's and TinyPerson's formats: demo, test bed and benchmark.

Needs NumPy, OpenCV and tqdm only.
"""

from .objects import SYNTHETIC_CLASSES
from .scenes import (
    DEFAULT_THEME_WEIGHTS,
    VISIBLE_SHARE,
    Scene,
    SceneConfig,
    SceneObject,
    draw_scene,
)
from .site import LEAST_SHARE
from .tiny_scenes import (
    TINY_CATEGORIES,
    TinyObject,
    TinyScene,
    TinySceneConfig,
    draw_tiny_scene,
)
from .tiny_writer import describe_annotations, write_tiny_scenes
from .writer import format_labels, scene_name, write_dota_scenes

__all__ = [
    "DEFAULT_THEME_WEIGHTS",
    "LEAST_SHARE",
    "SYNTHETIC_CLASSES",
    "TINY_CATEGORIES",
    "VISIBLE_SHARE",
    "Scene",
    "SceneConfig",
    "SceneObject",
    "TinyObject",
    "TinyScene",
    "TinySceneConfig",
    "describe_annotations",
    "draw_scene",
    "draw_tiny_scene",
    "format_labels",
    "scene_name",
    "write_dota_scenes",
    "write_tiny_scenes",
]
