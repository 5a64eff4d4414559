"""Faster R-CNN on a bottom-heavy ResNet-18 of half the width, to be trained on a CPU."""

from .faster_rcnn_bh50_sspnet import model

model.backbone.bottom_up.update(
    depths=[3, 2, 2, 1], bottleneck=False, width=32, norm="BN", norm_eval=False
)
model.backbone.out_channels = 64
model.proposal_generator.pre_nms_topk = (500, 500)
model.proposal_generator.post_nms_topk = (300, 300)
# No image is large enough for objects of the upper levels' anchors, and a best anchor is better
# than none for objects far smaller than every anchor.
model.proposal_generator.anchor_matcher.min_quality = 0.0
model.roi_heads.num_classes = 2
model.roi_heads.batch_size_per_image = 128
model.roi_heads.box_pooler.sampling_ratio = 2
model.roi_heads.box_head.fc_dims = [256, 256]
model.roi_heads.box_predictor.test_topk_per_image = 200
model.attention_loss.update(kind="heatmap", bce_weight=0.01)
