"""Data sets under Detectron2's catalogs; importing this registers the built-in ones."""

from rsd2.data.class_orders import DOTA_V1_0_CLASSES, DOTA_V1_5_CLASSES, DOTA_V2_0_CLASSES

from .aitod import AITOD_CLASSES, register_aitod
from .builtin import (
    register_all_dior_r,
    register_all_dota,
    register_all_ohd_sjtu,
    register_all_synthetic,
    register_all_tiny,
    register_all_video,
)
from .classification import (
    ArrayImages,
    load_cifar100,
    load_classification,
    load_image_folder,
    load_imagenet32,
    load_object_crops,
    register_classification,
)
from .coco_boxes import (
    load_coco_boxes,
    make_box_tiles,
    register_box_tiles,
    register_coco_boxes,
)
from .dior_r import load_dior_r, register_dior_r
from .dota import load_dota_instances, register_dota_instances
from .dota_tiles import (
    load_dota_tiles,
    make_virtual_tiles,
    register_dota_tiles,
    register_virtual_tiles,
)
from .drone_crowd import DRONE_CROWD_CLASSES, load_drone_crowd, register_drone_crowd
from .ohd_sjtu import load_ohd_sjtu, register_ohd_sjtu
from .rscardata import RSCARDATA_CLASSES, load_rscardata, register_rscardata
from .tiny_person import (
    PERSON_ALIASES,
    SYNTHETIC_TINY_CLASSES,
    TINY_PERSON_CLASSES,
    register_synthetic_tiny,
    register_tiny_person,
)
from .upright import make_upright, register_upright
from .viso import (
    VISO_CAR_FIRST_FRAMES,
    VISO_CLASSES,
    load_viso_coco,
    load_viso_mot,
    register_viso_coco,
    register_viso_mot,
)

__all__ = [
    "AITOD_CLASSES",
    "ArrayImages",
    "DOTA_V1_0_CLASSES",
    "DOTA_V1_5_CLASSES",
    "DOTA_V2_0_CLASSES",
    "DRONE_CROWD_CLASSES",
    "PERSON_ALIASES",
    "RSCARDATA_CLASSES",
    "SYNTHETIC_TINY_CLASSES",
    "TINY_PERSON_CLASSES",
    "VISO_CAR_FIRST_FRAMES",
    "VISO_CLASSES",
    "load_cifar100",
    "load_classification",
    "load_coco_boxes",
    "load_dior_r",
    "load_dota_instances",
    "load_dota_tiles",
    "load_drone_crowd",
    "load_image_folder",
    "load_imagenet32",
    "load_object_crops",
    "load_ohd_sjtu",
    "load_rscardata",
    "load_viso_coco",
    "load_viso_mot",
    "make_box_tiles",
    "make_upright",
    "make_virtual_tiles",
    "register_aitod",
    "register_all_dior_r",
    "register_all_dota",
    "register_all_ohd_sjtu",
    "register_all_synthetic",
    "register_all_tiny",
    "register_all_video",
    "register_box_tiles",
    "register_classification",
    "register_coco_boxes",
    "register_dior_r",
    "register_dota_instances",
    "register_dota_tiles",
    "register_drone_crowd",
    "register_ohd_sjtu",
    "register_rscardata",
    "register_synthetic_tiny",
    "register_tiny_person",
    "register_upright",
    "register_virtual_tiles",
    "register_viso_coco",
    "register_viso_mot",
]
