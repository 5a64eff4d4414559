"""Faster R-CNN on the small transformer on generated scenes, upright boxes: the study's detector.

train.init_checkpoint=FILE                           of a pre-training; none: from scratch
train.init_inherit.file_part=context_encoder         instead of the target encoder
dataloader.train.dataset.fraction=0.1                of the images
"""

from rsd2.config import get_config

from .common.finetune_small import lr_multiplier, optimizer, train
from .models.encoders import vit_small
from .models.faster_rcnn_vit_s16 import model

dataloader = get_config("common/data/synthetic_upright.py").dataloader

model.backbone.update(net=vit_small, out_channels=64, scale_factors=[2.0, 1.0, 0.5], top_block=None)
_rpn, _roi = model.proposal_generator, model.roi_heads
_rpn.in_features = _roi.box_in_features = ["p2", "p3", "p4"]
_rpn.head.conv_dims = [-1]
_rpn.anchor_generator.update(sizes=[[6.0, 9.0], [13.0, 19.0], [28.0, 42.0]], strides=[4, 8, 16])
_rpn.pre_nms_topk, _rpn.post_nms_topk = (500, 500), (300, 300)
_roi.num_classes = 7
_roi.batch_size_per_image = 64
_roi.box_pooler.update(scales=(1 / 4, 1 / 8, 1 / 16), sampling_ratio=2)
_roi.box_head.update(conv_dims=[], fc_dims=[256], conv_norm="")
_roi.box_predictor.test_topk_per_image = 200
