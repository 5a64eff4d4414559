"""Pre-training models at toy size and batches for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from detectron2.structures import Instances, RotatedBoxes

from rsd2.modeling import VisionTransformer
from rsd2.projects.object_jepa.masking import MaskSampler
from rsd2.projects.object_jepa.object_jepa import ObjectJEPA
from rsd2.projects.object_jepa.predictor import Predictor
from rsd2.testing import random_rotated_boxes

PATCH, WIDTH = 8, 32


def build_model(
    *, masks: dict | None = None, drop_path_rate: float = 0.0, seed: int = 0, **options: Any
) -> ObjectJEPA:
    torch.manual_seed(seed)
    encoder = VisionTransformer(
        patch_size=PATCH, embed_dim=WIDTH, depth=2, num_heads=2, drop_path_rate=drop_path_rate
    )
    predictor = Predictor(
        WIDTH,
        embed_dim=16,
        depth=2,
        num_heads=2,
        out_dim=3 * PATCH**2 if options.get("target") == "pixel" else None,
        mask_tokens=options.get("masked_input") != "fill",
    )
    sampler = MaskSampler(**{"num_predicted": 12, **(masks or {})})
    return ObjectJEPA(encoder, predictor, masks=sampler, **options)


def make_batch(*counts: int, size: tuple[int, int] = (48, 64)) -> list[dict]:
    batch = []
    for index, count in enumerate(counts):
        generator = torch.Generator().manual_seed(index)
        instances = Instances(size)
        instances.gt_boxes = RotatedBoxes(random_rotated_boxes(count, min(size), 6, 30, index))
        instances.gt_classes = torch.arange(count) % 3
        image = torch.randint(0, 256, (3, *size), generator=generator, dtype=torch.uint8)
        batch.append({"image": image, "instances": instances, "mask_seed": 10 + index})
    return batch


@pytest.fixture(scope="session")
def build_jepa() -> Callable[..., ObjectJEPA]:
    """Function that builds a model with patches of 8 pixels and 32 channels."""
    return build_model


@pytest.fixture(scope="session")
def make_crops() -> Callable[..., list[dict[str, Any]]]:
    """Function that makes a batch of 48 x 64 pixels with so many objects per image."""
    return make_batch
