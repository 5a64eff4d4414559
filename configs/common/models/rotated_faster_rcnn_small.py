"""Rotated Faster R-CNN for images of about 128 to 320 px, to be trained on a CPU."""

from detectron2.config import LazyCall as L

from rsd2.modeling.backbones.small_resnet import small_resnet

from .rotated_faster_rcnn_r50 import model

model.backbone.bottom_up = L(small_resnet)(
    width=32, blocks=[1, 2, 2, 2], norm="BN", out_features=["res2", "res3", "res4"]
)
model.backbone.out_channels = 128
model.backbone.top_block = None
model.proposal_generator.in_features = ["p2", "p3", "p4"]
model.proposal_generator.anchor_generator.update(sizes=[[12.0], [24.0], [48.0]], strides=[4, 8, 16])
model.proposal_generator.pre_nms_topk = (500, 500)
model.proposal_generator.post_nms_topk = (200, 200)
model.roi_heads.box_in_features = ["p2", "p3", "p4"]
model.roi_heads.box_pooler.scales = (1 / 4, 1 / 8, 1 / 16)
model.roi_heads.batch_size_per_image = 128
model.roi_heads.box_head.fc_dims = [256, 256]
model.roi_heads.box_predictor.test_topk_per_image = 300
