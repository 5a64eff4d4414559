"""Rotated Faster R-CNN on SODA-A, windows of 800 pixels enlarged to 1200, 12 epochs.

Trains on train and scores the merged whole images of test as the authors do: COCO's AP of small
objects, up to 20,000 detections of a class in an image. Give the mapper of the training loader a
``decoded_cache_dir``. Start from ImageNet weights, see ``rotated_faster_rcnn_r50_dota.py``.
"""

from detectron2.config import LazyCall as L

from rsd2.evaluation import SodaEvaluator

from .rotated_faster_rcnn_r50_dota import dataloader, lr_multiplier, model, optimizer, train

dataloader.train.dataset.names = "soda_a_train_800_150_virtual"
dataloader.test.dataset.names = "soda_a_test_800_150_virtual"
for _part in (dataloader.train, dataloader.test):
    _part.mapper.augmentations[0].update(short_edge_length=1200, max_size=1200)
dataloader.evaluator = L(SodaEvaluator)(
    dataset_name="${..test.dataset.names}", output_dir="${train.output_dir}/inference"
)
model.roi_heads.num_classes = 9

# 12 epochs in batches of 2, for an assumed 40,000 windows; the training's log tells how many yours
# are: train.max_iter = 12 * windows / 2.
train.max_iter = 240_000
train.eval_period = train.checkpointer.period = 20_000
