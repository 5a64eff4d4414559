"""Synthetic overhead scenes in DOTA's format: the demo, the test bed and the benchmark.

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
from .writer import format_labels, scene_name, write_dota_scenes

__all__ = [
    "DEFAULT_THEME_WEIGHTS",
    "LEAST_SHARE",
    "SYNTHETIC_CLASSES",
    "VISIBLE_SHARE",
    "Scene",
    "SceneConfig",
    "SceneObject",
    "draw_scene",
    "format_labels",
    "scene_name",
    "write_dota_scenes",
]
