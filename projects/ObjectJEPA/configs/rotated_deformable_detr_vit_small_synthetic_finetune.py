"""The small rotated detector on the small transformer, on generated scenes.

train.init_checkpoint=FILE                           of a pre-training; none: from scratch
train.init_inherit.file_part=context_encoder         instead of the target encoder
dataloader.train.dataset.fraction=0.1                of the images
"""

from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec

from rsd2.config import get_config
from rsd2.modeling import SimplePyramid

from .common.finetune_small import lr_multiplier, optimizer, train
from .models.encoders import vit_small

dataloader = get_config("common/data/synthetic.py").dataloader
model = get_config("common/models/rotated_deformable_detr_small.py").model

model.num_classes = 7
model.backbone = L(SimplePyramid)(
    net=vit_small, out_channels=128, scale_factors=[2.0, 1.0, 0.5], norm="LN"
)
model.neck.in_features = ["p2", "p3", "p4"]
model.neck.input_shapes = {
    "p2": L(ShapeSpec)(channels=128, stride=4),
    "p3": L(ShapeSpec)(channels=128, stride=8),
    "p4": L(ShapeSpec)(channels=128, stride=16),
}
