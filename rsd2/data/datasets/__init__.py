"""Data sets under Detectron2's catalogs; importing this registers the built-in ones."""

from .builtin import register_all_dota, register_all_synthetic
from .dota import (
    DOTA_V1_0_CLASSES,
    DOTA_V1_5_CLASSES,
    DOTA_V2_0_CLASSES,
    load_dota_instances,
    register_dota_instances,
)
from .dota_tiles import (
    load_dota_tiles,
    make_virtual_tiles,
    register_dota_tiles,
    register_virtual_tiles,
)

__all__ = [
    "DOTA_V1_0_CLASSES",
    "DOTA_V1_5_CLASSES",
    "DOTA_V2_0_CLASSES",
    "load_dota_instances",
    "load_dota_tiles",
    "make_virtual_tiles",
    "register_all_dota",
    "register_all_synthetic",
    "register_dota_instances",
    "register_dota_tiles",
    "register_virtual_tiles",
]
