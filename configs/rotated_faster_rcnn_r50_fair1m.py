"""Rotated Faster R-CNN on FAIR1M, 37 fine classes, windows of 1024 pixels, 12 epochs.

Trains on train and scores the merged full images of val. The labels of test are secret: ``rsd2
predict --labels-format fair1m`` writes detections in the XML of the dataset. ``_coarse`` before
``_1024`` in both names and ``model.roi_heads.num_classes=5`` train on the five groups. Give the
mapper of the training loader a ``decoded_cache_dir``. Start from ImageNet weights, see
``rotated_faster_rcnn_r50_dota.py``.
"""

from .rotated_faster_rcnn_r50_dota import dataloader, lr_multiplier, model, optimizer, train

dataloader.train.dataset.names = "fair1m_train_1024_200_virtual"
dataloader.test.dataset.names = "fair1m_val_1024_200_virtual"
model.roi_heads.num_classes = 37

# 12 epochs in batches of 2, for an assumed 40,000 windows; the training's log tells how many yours
# are: train.max_iter = 12 * windows / 2.
train.max_iter = 240_000
train.eval_period = train.checkpointer.period = 20_000
