"""Data sets under Detectron2's catalogs; importing this registers the built-in ones."""

from rsd2.data.class_orders import DOTA_V1_0_CLASSES, DOTA_V1_5_CLASSES, DOTA_V2_0_CLASSES

from .builtin import (
    register_all_dior_r,
    register_all_dota,
    register_all_ohd_sjtu,
    register_all_synthetic,
)
from .dior_r import load_dior_r, register_dior_r
from .dota import load_dota_instances, register_dota_instances
from .dota_tiles import (
    load_dota_tiles,
    make_virtual_tiles,
    register_dota_tiles,
    register_virtual_tiles,
)
from .ohd_sjtu import load_ohd_sjtu, register_ohd_sjtu

__all__ = [
    "DOTA_V1_0_CLASSES",
    "DOTA_V1_5_CLASSES",
    "DOTA_V2_0_CLASSES",
    "load_dior_r",
    "load_dota_instances",
    "load_dota_tiles",
    "load_ohd_sjtu",
    "make_virtual_tiles",
    "register_all_dior_r",
    "register_all_dota",
    "register_all_ohd_sjtu",
    "register_all_synthetic",
    "register_dior_r",
    "register_dota_instances",
    "register_dota_tiles",
    "register_ohd_sjtu",
    "register_virtual_tiles",
]
