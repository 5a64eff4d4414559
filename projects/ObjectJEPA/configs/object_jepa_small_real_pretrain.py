"""ObjectJEPA on a small transformer on crops of small real sets: ships, planes, ports.

Only training splits, whose boxes choose what is hidden and predicted. Without any box:
``model.masks.mode=blocks model.masks.loss_set=blocks``.
"""

from detectron2.config import LazyCall as L
from detectron2.data import transforms as T

from rsd2.data.samplers import ObjectSampler

from .models.encoders import vit_small_p16
from .object_jepa_small_synthetic_pretrain import dataloader, lr_multiplier, model, optimizer, train

model.encoder = vit_small_p16

dataloader.train.dataset.update(
    names=["hrsc_train", "airport_train", "sen2ships_train_384_128"], held_out=["hrsc_test"]
)
# Seven of ten images are windows of ports, of which most show no ship.
dataloader.train.sampler = L(ObjectSampler)(dataset="${..dataset}", share=0.8)
# Around the sizes that the detector of ships sees.
_resize = L(T.ResizeShortestEdge)(short_edge_length=[224, 384], max_size=512, sample_style="range")
dataloader.train.mapper.augmentations[0].crop_size = [256, 256]
dataloader.train.mapper.augmentations[1].crop_size = [256, 256]
dataloader.train.mapper.augmentations.insert(0, _resize)

train.max_iter = 600
train.hooks.telemetry.dataset = "${dataloader.train.dataset}"
train.hooks.telemetry.update(period=300, num_images=40)
