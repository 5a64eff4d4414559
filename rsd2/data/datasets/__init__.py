"""Datasets under Detectron2's catalogs; importing this registers the built-in ones."""

from rsd2.data.class_orders import DOTA_V1_0_CLASSES as DOTA_V1_0_CLASSES
from rsd2.data.class_orders import DOTA_V1_5_CLASSES as DOTA_V1_5_CLASSES
from rsd2.data.class_orders import DOTA_V2_0_CLASSES as DOTA_V2_0_CLASSES

from .aitod import AITOD_CLASSES as AITOD_CLASSES
from .aitod import register_aitod as register_aitod
from .any_format import load_dataset as load_dataset
from .any_format import register_dataset as register_dataset
from .builtin import register_all as register_all
from .builtin import register_all_dior_r as register_all_dior_r
from .builtin import register_all_dota as register_all_dota
from .builtin import register_all_ohd_sjtu as register_all_ohd_sjtu
from .builtin import register_all_scenes as register_all_scenes
from .builtin import register_all_synthetic as register_all_synthetic
from .builtin import register_all_tiny as register_all_tiny
from .builtin import register_all_video as register_all_video
from .builtin import register_builtin as register_builtin
from .classification import ArrayImages as ArrayImages
from .classification import load_cifar100 as load_cifar100
from .classification import load_classification as load_classification
from .classification import load_image_folder as load_image_folder
from .classification import load_imagenet32 as load_imagenet32
from .classification import load_object_crops as load_object_crops
from .classification import register_classification as register_classification
from .coco_boxes import load_coco_boxes as load_coco_boxes
from .coco_boxes import make_box_tiles as make_box_tiles
from .coco_boxes import register_box_tiles as register_box_tiles
from .coco_boxes import register_coco_boxes as register_coco_boxes
from .dior_r import load_dior_r as load_dior_r
from .dior_r import register_dior_r as register_dior_r
from .dota import load_dota_instances as load_dota_instances
from .dota import register_dota_instances as register_dota_instances
from .dota_tiles import load_dota_tiles as load_dota_tiles
from .dota_tiles import make_virtual_tiles as make_virtual_tiles
from .dota_tiles import register_dota_tiles as register_dota_tiles
from .dota_tiles import register_virtual_tiles as register_virtual_tiles
from .drone_crowd import DRONE_CROWD_CLASSES as DRONE_CROWD_CLASSES
from .drone_crowd import load_drone_crowd as load_drone_crowd
from .drone_crowd import register_drone_crowd as register_drone_crowd
from .ohd_sjtu import load_ohd_sjtu as load_ohd_sjtu
from .ohd_sjtu import register_ohd_sjtu as register_ohd_sjtu
from .rscardata import RSCARDATA_CLASSES as RSCARDATA_CLASSES
from .rscardata import load_rscardata as load_rscardata
from .rscardata import register_rscardata as register_rscardata
from .scenes import load_scenes as load_scenes
from .scenes import register_scenes as register_scenes
from .tiny_person import PERSON_ALIASES as PERSON_ALIASES
from .tiny_person import SYNTHETIC_TINY_CLASSES as SYNTHETIC_TINY_CLASSES
from .tiny_person import TINY_PERSON_CLASSES as TINY_PERSON_CLASSES
from .tiny_person import register_synthetic_tiny as register_synthetic_tiny
from .tiny_person import register_tiny_person as register_tiny_person
from .upright import make_upright as make_upright
from .upright import register_upright as register_upright
from .viso import VISO_CAR_FIRST_FRAMES as VISO_CAR_FIRST_FRAMES
from .viso import VISO_CLASSES as VISO_CLASSES
from .viso import load_viso_coco as load_viso_coco
from .viso import load_viso_mot as load_viso_mot
from .viso import register_viso_coco as register_viso_coco
from .viso import register_viso_mot as register_viso_mot

# The one import that does something: Detectron2's users expect it of a package of datasets.
register_builtin()
