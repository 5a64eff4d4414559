"""Rotated two-stage deformable DETR for images of about 128 px, to be trained on a CPU."""

from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec

from rsd2.modeling.backbones.small_resnet import small_resnet

from .rotated_deformable_detr_r50 import model

model.backbone = L(small_resnet)(
    width=32, blocks=[1, 2, 2, 2], norm="BN", out_features=["res3", "res4", "res5"]
)
model.neck.input_shapes = {
    "res3": L(ShapeSpec)(channels=64, stride=8),
    "res4": L(ShapeSpec)(channels=128, stride=16),
    "res5": L(ShapeSpec)(channels=256, stride=32),
}
model.embed_dim = 128
model.num_levels = 3
model.encoder.num_layers = 1
model.encoder.num_heads = 4
model.encoder.feedforward_dim = 256
model.encoder.dropout = 0.0
model.decoder.num_layers = 2
model.num_queries = 64
model.max_detections = 100
model.num_denoising_queries = 50
# Short trainings learn angles and boxes sooner with heavier losses; NMS drops duplicates.
model.nms_threshold = 0.3
model.criterion.l1_weight = model.criterion.matcher.l1_weight = 5.0
model.criterion.angle_weight = 6.0
model.criterion.giou_weight = model.criterion.matcher.giou_weight = 8.0
