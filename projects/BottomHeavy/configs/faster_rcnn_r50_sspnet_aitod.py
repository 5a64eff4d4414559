"""The ordinary ResNet-50 with SSPNet on AI-TOD, trained like the bottom-heavy one."""

from rsd2.config import get_config

from .models.faster_rcnn_bh50_sspnet import model
from .recipes.tiny_person import lr_multiplier, optimizer, train

dataloader = get_config("common/data/aitod.py").dataloader

model.roi_heads.num_classes = 8
model.proposal_generator.post_nms_topk = (3000, 3000)
model.proposal_generator.pre_nms_topk = (3000, 3000)
model.roi_heads.box_predictor.test_topk_per_image = 1500
# 14,018 images in batches of 2
train.max_iter = 12 * 7009
train.eval_period = train.checkpointer.period = 7009
model.backbone.bottom_up.update(
    depths=[3, 4, 6, 3], stage_strides=[1, 2, 2, 2], stem_kernel_size=7, stem_stride=2
)
