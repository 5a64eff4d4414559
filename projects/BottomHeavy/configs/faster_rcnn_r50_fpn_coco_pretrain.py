"""Pre-training on COCO whose images are shrunk to TinyPerson's object sizes: scale match.

Source: Yu et al., "Scale Match for Tiny Person Detection", WACV 2020: rate 0.02 in batches of 32,
45,000 steps. When the rate falls is not published; here after two thirds and eight ninths. Then
train ``faster_rcnn_r50_fpn_tiny_person.py`` with ``train.init_checkpoint=FILE
train.init_strict=false``; only the layers of the classes start anew. The monotone form, in which
small stays smaller than large, needs the sizes of COCO too:
``dataloader.train.mapper.augmentations.0.source=coco_2017_train``.

There is nothing to evaluate: what a pre-training is worth shows in fine-tuning.
"""

from detectron2.config import LazyCall as L

from rsd2.data.mappers.scale_match import ScaleMatch

from .models.faster_rcnn_bh50_sspnet import model
from .models.fpn import fpn as _fpn
from .recipes.tiny_person import dataloader, lr_multiplier, optimizer, train

model.backbone.bottom_up.update(
    depths=[3, 4, 6, 3], stage_strides=[1, 2, 2, 2], stem_kernel_size=7, stem_stride=2
)
_fpn.update(bottom_up=model.backbone.bottom_up, out_channels=model.backbone.out_channels)
model.backbone = _fpn
model.attention_loss = None
model.roi_heads.num_classes = 80
del dataloader.test, dataloader.evaluator
dataloader.train.update(total_batch_size=32, num_workers=8)
dataloader.train.dataset.update(names="coco_2017_train", filter_empty=True)
dataloader.train.mapper.augmentations[0] = L(ScaleMatch)(
    target="tiny_person_train_640x512_50", source=None
)
# As in the paper; what is smaller was shrunk to nothing that could be found.
dataloader.train.mapper.min_side = 2.0
optimizer.lr = 0.02
lr_multiplier.scheduler.update(milestones=[6, 8], num_updates=9)
train.max_iter = 45_000
train.eval_period = 0
train.checkpointer.period = 5000
