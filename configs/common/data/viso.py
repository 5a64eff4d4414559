"""Loaders and evaluator of VISO's cars, resized as MICML's authors do: 512 pixels, 1024 at test.

Results are in the pixels of the files. Both splits are those of a copy whose splits count from 1;
for another one register a set with ``first_frames`` (``rsd2/data/datasets/README.md``).
"""

from detectron2.config import LazyCall as L
from detectron2.data import transforms as T
from PIL import Image

from rsd2.config import get_config

dataloader = get_config("common/data/rscardata.py").dataloader

dataloader.train.dataset.names = "viso_coco_car_train"
dataloader.test.dataset.names = "viso_coco_car_val"
resize = L(T.Resize)(shape=[512, 512], interp=int(Image.Resampling.BICUBIC))
dataloader.train.mapper.augmentations.insert(0, resize)
dataloader.test.mapper.augmentations = [L(T.Resize)(shape=[1024, 1024], interp=resize.interp)]
dataloader.evaluator.protocols = ["viso", "distance5"]
