"""A toy detector, dataset and evaluator with the interfaces of the real ones.

Configs name it as the module ``toy``; tests put this folder on the path.
"""

from __future__ import annotations

import json
import os
import random
import time
from pathlib import Path

import numpy as np
import torch
from detectron2.evaluation import DatasetEvaluator
from torch import nn

LOSSES: list[float] = []  # of every training batch of this process

CONFIG = """
import toy
from detectron2.config import LazyCall as L
from detectron2.data import build_detection_test_loader
from omegaconf import OmegaConf

from rsd2.config import get_config
from rsd2.data.samplers import build_train_loader

model = L(toy.ToyDetector)(channels=4, dropout=0.2)
dataloader = OmegaConf.create({}, flags={"allow_objects": True})
dataloader.train = L(build_train_loader)(
    dataset=L(toy.toy_dicts)(size=7), mapper=L(toy.ToyMapper)(), total_batch_size=2, num_workers=0,
)
dataloader.test = L(build_detection_test_loader)(
    dataset=L(toy.toy_dicts)(size=3), mapper=L(toy.ToyMapper)(augment=False), num_workers=0,
)
dataloader.evaluator = L(toy.ToyEvaluator)(output_dir="${train.output_dir}/inference")
optimizer = get_config("common/optim.py").AdamW
optimizer.lr = 0.01
lr_multiplier = get_config("common/schedule.py").step
lr_multiplier.warmup_iters = 2
train = get_config("common/train.py").train
train.max_iter = 4
train.device = "cpu"
train.log_period = 1
train.eval_period = 0
train.checkpointer.period = 100
"""


class ToyDetector(nn.Module):
    """Predicts one number per image; convolution, normalization, dropout, linear layer."""

    def __init__(self, channels: int = 4, dropout: float = 0.0, norm: bool = True) -> None:
        super().__init__()
        self.backbone = nn.Conv2d(3, channels, 3, stride=2)
        self.norm = nn.BatchNorm2d(channels) if norm else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(channels, 1)

    def forward(self, batch: list[dict]) -> dict | list:
        device = self.head.weight.device
        images = torch.stack([x["image"] for x in batch]).to(device).float() / 255
        features = self.norm(self.backbone(images)).relu().mean(dim=(2, 3))
        scores = self.head(self.dropout(features)).squeeze(1)
        if not self.training:
            return [{"score": score} for score in scores]
        wanted = torch.tensor([x["value"] for x in batch], device=device)
        error = (scores - wanted).square().mean()
        LOSSES.append(float(error.detach()))
        return {"loss_fit": error, "loss_size": 0.1 * scores.abs().mean()}


def toy_dicts(size: int, value: float = 1.0) -> list[dict]:
    return [
        {"file_name": f"P{i:04d}.png", "image_id": i, "height": 8, "width": 8, "value": value + i}
        for i in range(size)
    ]


class ToyMapper:
    """Noise of all three random generators on an image that only its index decides."""

    def __init__(self, augment: bool = True, delay: float = 0.0) -> None:
        self.augment, self.delay = augment, delay

    def __call__(self, sample: dict) -> dict:
        time.sleep(self.delay)
        generator = torch.Generator().manual_seed(sample["image_id"])
        image = torch.randint(0, 200, (3, 8, 8), generator=generator, dtype=torch.uint8)
        if self.augment:
            noise = np.random.randint(0, 20) + random.randrange(20) + int(torch.randint(15, ()))
            image = image + noise
        return {**sample, "image": image}


class ToyEvaluator(DatasetEvaluator):
    """Mean score; also draws random numbers, as a careless evaluator may."""

    def __init__(self, output_dir: str | None = None) -> None:
        self.output_dir = output_dir
        self.scores: list[float] = []

    def reset(self) -> None:
        self.scores = []

    def process(self, inputs: list, outputs: list) -> None:
        self.scores += [float(x["score"]) for x in outputs]

    def evaluate(self) -> dict:
        torch.rand(1)
        np.random.rand()
        result = {"bbox": {"AP": sum(self.scores) / len(self.scores), "AP50": float("nan")}}
        if self.output_dir:
            os.makedirs(self.output_dir, exist_ok=True)
            Path(self.output_dir, "toy.json").write_text(json.dumps(result))
        return result
