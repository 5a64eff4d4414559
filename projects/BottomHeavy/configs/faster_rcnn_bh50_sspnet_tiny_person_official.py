"""Bottom-heavy ResNet-50 with SSPNet on TinyPerson, trained and tested as the released program.

Source: arXiv 2303.11267 and its released configuration. Training images are rotated by up to 45
degrees half of the time, whole test images are averaged over two scales. Boxes of rotated objects
are the upright ones around them, so tiny objects grow by up to two in a side.
"""

from detectron2.config import LazyCall as L
from detectron2.data import transforms as T

from .models.faster_rcnn_bh50_sspnet import model
from .recipes.tiny_person import dataloader, lr_multiplier, optimizer, train

dataloader.train.mapper.augmentations.insert(
    1,
    L(T.RandomApply)(tfm_or_aug=L(T.RandomRotation)(angle=[-45.0, 45.0], expand=False), prob=0.5),
)
# Whole images come in their own size; the detector makes the scales.
dataloader.test.dataset.names = "tiny_person_test"
dataloader.test.mapper.augmentations = []
model.test_sizes = [(1024, 1280), (1536, 1920)]
