"""The small DLA-34 on crops of generated scenes: a start where no weights of ImageNet are at hand.

The static branch of a small detector takes it over by
``train.init_checkpoint=FILE 'train.init_inherit={_target_: rsd2.weights.inheritance.Inheritance,
parts: [static.backbone], file_part: backbone.net, model_part: static.backbone,
pretraining_only: [head]}'``. Crops are RGB, clips BGR, as in the released programs' start.
"""

from detectron2.config import LazyCall as L

from rsd2.config import get_config
from rsd2.evaluation import ClassificationEvaluator
from rsd2.modeling import ImageClassifier
from rsd2.projects.micml.dla import DLA34, DLABackbone

from .models.micml_small import model as detector
from .recipes.synthetic_video import lr_multiplier, optimizer, train

dataloader = get_config("common/data/small_images.py").dataloader

model = L(ImageClassifier)(
    backbone=L(DLABackbone)(net=L(DLA34)(channels=detector.static.channels)),
    feature="level4",
    num_classes=8,
    pixel_mean=detector.pixel_mean,
    pixel_std=detector.pixel_std,
)

dataloader.train.dataset.name = "synthetic_crops_train"
dataloader.test.dataset.name = "synthetic_crops_val"
dataloader.train.mapper.cached_images = 1000
dataloader.train.num_workers = dataloader.test.num_workers = 0
dataloader.evaluator = L(ClassificationEvaluator)()
