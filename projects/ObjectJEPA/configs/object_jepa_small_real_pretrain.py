"""ObjectJEPA on a small transformer on crops of small real sets: ships, planes, ports.

Only training splits, whose boxes choose what is hidden and predicted. Without any box:
``model.masks.mode=blocks model.masks.loss_set=blocks``.
"""

from detectron2.config import LazyCall as L
from detectron2.data import transforms as T

from rsd2.data.samplers import ObjectSampler

from .common.pretrain import dataloader, lr_multiplier, optimizer, train
from .models.encoders import vit_small_p16
from .models.object_jepa_vit_s16 import model

model.encoder = vit_small_p16
model.predictor.update(embed_dim=64, depth=3)
model.masks.num_predicted = 96
model.variance_weight = 0.05

dataloader.train.dataset.update(
    names=["hrsc_train", "airport_train", "sen2ships_train_384_128"], held_out=["hrsc_test"]
)
# Seven of ten images are windows of ports, of which most show no ship.
dataloader.train.sampler = L(ObjectSampler)(dataset="${..dataset}", share=0.8)
dataloader.train.mapper.augmentations[0].crop_size = [256, 256]
# Around the sizes that the detector of ships sees.
_resize = L(T.ResizeShortestEdge)(short_edge_length=[224, 384], max_size=512, sample_style="range")
dataloader.train.mapper.augmentations.insert(0, _resize)
dataloader.train.mapper.augmentations[2].crop_size = "${..1.crop_size}"
dataloader.train.total_batch_size = 16
dataloader.train.num_workers = 0

# The short recipe of the small transformer on generated scenes.
optimizer.lr = 2e-4
lr_multiplier.warmup_iters = 150
train.max_iter = 600
train.amp.enabled = False
train.hooks.target.half_life = 70
train.checkpointer.update(period=100, max_to_keep=2)
train.hooks.telemetry.update(period=300, num_images=40)
