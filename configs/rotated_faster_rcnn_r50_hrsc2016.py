"""Rotated Faster R-CNN on HRSC2016, one class, images within 800 x 512 pixels, 36 epochs.

Trains on trainval (617 images) and scores test by VOC 2007's average precision; papers also report
``dataloader.evaluator.ap_method=area``. ``_types`` behind both names and
``model.roi_heads.num_classes=31`` tell the types of ships apart. Start from ImageNet weights, see
``rotated_faster_rcnn_r50_dota.py``.
"""

from .rotated_faster_rcnn_r50_dota import dataloader, lr_multiplier, model, optimizer, train

dataloader.train.dataset.names = "hrsc2016_trainval"
dataloader.test.dataset.names = "hrsc2016_test"
for _part in (dataloader.train, dataloader.test):
    _part.mapper.augmentations[0].update(short_edge_length=512, max_size=800)
# Nobody leaves out the few ships that are flagged as difficult.
dataloader.evaluator.difficult_policy = "count-all"

model.roi_heads.num_classes = 1
lr_multiplier.scheduler.update(milestones=[24, 33], num_updates=36)

# 36 epochs in batches of 2.
train.max_iter = 11_106
train.eval_period = train.checkpointer.period = 3702
