"""Pre-training models at toy size, built from the configs, and batches for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from detectron2.config import instantiate
from detectron2.structures import Instances, RotatedBoxes
from torch import nn
from torch.nn import functional as F

from rsd2.config import apply_overrides, get_config
from rsd2.testing import random_rotated_boxes, shrink

EMBEDDING_DIM = 16


def build_model(name: str, *overrides: str) -> nn.Module:
    cfg = shrink(get_config(f"MutDet/configs/{name}.py"))
    cfg.model.detector.num_classes = 5
    cfg.model.embedding_dim = EMBEDDING_DIM
    cfg.model.max_objects = 50
    for layers in (cfg.model.detector.encoder, cfg.model.detector.decoder):
        layers.dropout = 0.0
    apply_overrides(cfg, list(overrides))
    torch.manual_seed(0)
    return instantiate(cfg.model)


def make_batch(*counts: int, size: tuple[int, int] = (64, 64), num_classes: int = 5) -> list[dict]:
    batch = []
    for index, count in enumerate(counts):
        generator = torch.Generator().manual_seed(index)
        instances = Instances(size)
        instances.gt_boxes = RotatedBoxes(random_rotated_boxes(count, min(size), 6, 30, index))
        instances.gt_classes = (torch.arange(count) + index) % num_classes
        instances.gt_embeddings = F.normalize(
            torch.randn(count, EMBEDDING_DIM, generator=generator), dim=1
        )
        image = torch.randint(0, 256, (3, *size), generator=generator, dtype=torch.uint8)
        batch.append({"image": image, "instances": instances})
    return batch


@pytest.fixture(scope="session")
def build_pretraining(ablation_rows: dict) -> Callable[..., nn.Module]:
    """Function that builds the model of a config or of a row of the ablation, with overrides.

    The model is tiny: 5 classes, 16 channels.
    """

    def build(name: str, *overrides: str) -> nn.Module:
        if name in ablation_rows:
            _, config, changes = ablation_rows[name]
            return build_model(config.stem, *changes, *overrides)
        return build_model(name, *overrides)

    return build


@pytest.fixture(scope="session")
def make_pseudo_batch() -> Callable[..., list[dict[str, Any]]]:
    """Function that makes a batch with so many pseudo-objects per image."""
    return make_batch
