"""The detectors' ResNet-50, from random weights, on crops of pseudo-boxes on DOTA-v1.0's tiles.

``make_pseudo_labels.py`` makes the boxes. Crops have 128 pixels, as those of DETReg. The loss
compares the crops of one process, so on N GPUs each of them needs a large batch of its own.
"""

from detectron2.config import LazyCall as L

from rsd2.config import get_config
from rsd2.data.datasets.pseudo import get_pseudo_dicts
from rsd2.projects.mutdet.embedder_data import list_crops

from .common.embedder import dataloader, lr_multiplier, model, optimizer, train

_root = "${oc.env:DETECTRON2_DATASETS,datasets}"

model.backbone = get_config("common/models/rotated_deformable_detr_r50.py").model.backbone
# A frozen norm does not learn from random weights.
model.backbone.stem.norm = model.backbone.stages.norm = "BN"
model.backbone.update(out_features=["res5"], freeze_at=0)

dataloader.train.update(total_batch_size=256, num_workers=8)
dataloader.train.mapper.size = 128
dataloader.train.dataset = L(list_crops)(
    dataset=L(get_pseudo_dicts)(
        folder=f"{_root}/pseudo/dota_v1.0_train_800_200",
        image_root=f"{_root}/dota/v1.0/tiles/train_800_200/images",
        classes="one",
    ),
    min_crops="${..total_batch_size}",
)

lr_multiplier.warmup_iters = 1000
train.max_iter = 50_000
train.amp.update(enabled=True, dtype="bfloat16")
train.checkpointer.update(period=5000)
