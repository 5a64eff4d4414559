"""Synthetic overhead scenes and videos: demo, test bed and benchmark.

They are written in DOTA's, TinyPerson's and RsCarData's formats.
"""

from rsd2.data.class_orders import SYNTHETIC_CLASSES as SYNTHETIC_CLASSES
from rsd2.data.formats.rscardata import RSCARDATA_SPLITS as RSCARDATA_SPLITS

from .georeferenced import PlaceConfig as PlaceConfig
from .georeferenced import write_georeferenced_scenes as write_georeferenced_scenes
from .scenes.scene import DEFAULT_THEME_WEIGHTS as DEFAULT_THEME_WEIGHTS
from .scenes.scene import VISIBLE_SHARE as VISIBLE_SHARE
from .scenes.scene import Scene as Scene
from .scenes.scene import SceneConfig as SceneConfig
from .scenes.scene import SceneObject as SceneObject
from .scenes.scene import draw_scene as draw_scene
from .scenes.site import LEAST_SHARE as LEAST_SHARE
from .tiny.scene import TINY_CATEGORIES as TINY_CATEGORIES
from .tiny.scene import TinyObject as TinyObject
from .tiny.scene import TinyScene as TinyScene
from .tiny.scene import TinySceneConfig as TinySceneConfig
from .tiny.scene import draw_tiny_scene as draw_tiny_scene
from .tiny.writer import describe_annotations as describe_annotations
from .tiny.writer import write_tiny_scenes as write_tiny_scenes
from .video.config import VideoConfig as VideoConfig
from .video.scene import VideoLabel as VideoLabel
from .video.scene import VideoPlan as VideoPlan
from .video.scene import VideoRenderer as VideoRenderer
from .video.scene import plan_video as plan_video
from .video.statistics import StatisticRow as StatisticRow
from .video.statistics import format_statistics as format_statistics
from .video.statistics import measure_videos as measure_videos
from .video.writer import make_record as make_record
from .video.writer import read_video_records as read_video_records
from .video.writer import write_videos as write_videos
from .writer import METRES_PER_UNIT as METRES_PER_UNIT
from .writer import format_labels as format_labels
from .writer import scene_name as scene_name
from .writer import write_dota_scenes as write_dota_scenes
