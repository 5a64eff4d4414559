"""Pre-training on crops of DOTA-v1.0's training tiles: data and recipe.

Crops of 448 pixels at native scale, half of them on an object; flips and quarter turns. AdamW at
1.5e-4 with 256 crops a step, a tenth of the training as warm-up, then a cosine; weight decay from
0.04 to 0.4; the target's momentum from 0.996 to 1. There is nothing to evaluate: what a
pre-training is worth shows in fine-tuning.
"""

from detectron2.config import LazyCall as L
from detectron2.data import transforms as T
from fvcore.common.param_scheduler import CosineParamScheduler
from omegaconf import OmegaConf

from rsd2.config import get_config
from rsd2.data.mappers.transforms import Random90Rotation, RandomFlipDirection, RandomObjectCrop
from rsd2.data.samplers import build_train_loader
from rsd2.engine import TargetUpdate, WeightDecaySchedule
from rsd2.projects.object_jepa.alarms import CollapseAlarms
from rsd2.projects.object_jepa.crop_mapper import CropDatasetMapper
from rsd2.projects.object_jepa.pretraining_data import get_pretraining_dicts
from rsd2.projects.object_jepa.telemetry_hook import TelemetryHook

optimizer = get_config("common/optim.py").AdamW
lr_multiplier = get_config("common/schedule.py").cosine
train = get_config("common/train.py").train

dataloader = OmegaConf.create()
dataloader.train = L(build_train_loader)(
    dataset=L(get_pretraining_dicts)(
        names="dota_v1.0_train_1024_200",
        # Datasets whose images must not be among these; the names are always checked.
        held_out=[],
        fraction=1.0,
        # Share of images that keep their boxes; the others have none.
        labelled_fraction=1.0,
        split_seed=0,
        split_file=None,
    ),
    mapper=L(CropDatasetMapper)(
        is_train=True,
        augmentations=[
            L(RandomObjectCrop)(crop_size=[448, 448], object_prob=0.5),
            # Pads smaller images.
            L(T.FixedSizeCrop)(crop_size="${..0.crop_size}"),
            L(RandomFlipDirection)(horizontal=0.25, vertical=0.25, diagonal=0.25),
            L(Random90Rotation)(),
        ],
        image_format="RGB",
        min_visible=0.3,
        box_kind="rotated",
        box_jitter=0.0,
    ),
    total_batch_size=256,
    num_workers=8,
)

optimizer.lr = 1.5e-4
optimizer.fused = True
optimizer.weight_decay = 0.04
optimizer.params.update(lr_multipliers={}, weight_decay_norm=0.0, weight_decay_bias=0.0)
lr_multiplier.warmup_iters, lr_multiplier.warmup_factor = 6000, 0.2
lr_multiplier.scheduler.end_value = 1e-3
# 15 million crops
train.max_iter = 60_000
train.clip_grad.enabled, train.clip_grad.max_norm = True, 1.0
train.amp.enabled, train.amp.dtype = True, "bfloat16"
train.eval_period = 0
train.hooks.target = L(TargetUpdate)(start=0.996, end=1.0, half_life=None)
train.hooks.weight_decay = L(WeightDecaySchedule)(
    scheduler=L(CosineParamScheduler)(start_value=1.0, end_value=10.0)
)
train.hooks.telemetry = L(TelemetryHook)(
    # Any images of one size with boxes; held-out ones are better if there are any.
    dataset="${dataloader.train.dataset}",
    mapper="${dataloader.train.mapper}",
    output_dir="${train.output_dir}",
    period=2000,
    num_images=64,
    batch_size=8,
    alarms=L(CollapseAlarms)(grace="${lr_multiplier.warmup_iters}"),
)
