"""A step of MutDet's pre-training against the plain detector whose decoder and losses run twice.

MutDet decodes plain and enhanced tokens, which is its unavoidable cost; beyond that it pays for
mutual enhancement and alignment. Both sides: ResNet-50 with a frozen backbone, six layers
each, denoising queries, the same image and objects; forward, backward and the optimizer.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from detectron2.config import instantiate
from detectron2.structures import Instances, RotatedBoxes
from torch import nn
from torch.nn import functional as F

from benchmarks.harness import Case
from rsd2.config import get_config
from rsd2.modeling.outputs import EncodedImages
from rsd2.projects.mutdet.alignment import EmbeddedTargets
from rsd2.projects.mutdet.detreg import DETReg
from rsd2.testing import random_rotated_boxes

SIDE, NUM_OBJECTS = 1024, 300


class PlainTwice(DETReg):
    """The plain detector with a frozen backbone, decoded and compared with the objects twice."""

    def training_losses(
        self, encoded: EncodedImages, targets: list[EmbeddedTargets]
    ) -> dict[str, torch.Tensor]:
        """Compute the detection losses of two equal runs."""
        losses = {}
        for run in ("first", "second"):
            outputs = self.detect(encoded, targets)
            found, _ = self.losses(targets, outputs, self.normalizers(targets, outputs))
            losses |= {f"{run}_{name}": value for name, value in found.items()}

        # This class never uses the alignment head; its parameters need a gradient nevertheless.
        losses["idle"] = 0.0 * sum(p.sum() for p in self.embedding_head.parameters())
        return losses


def make_batch(side: int, num_objects: int, embedding_dim: int, num_classes: int) -> list[dict]:
    """Make one random image with objects, as the mapper does.

    Args:
        side: side of the image, pixels.
        num_objects: number of objects on the image.
        embedding_dim: channels of an embedding.
        num_classes: number of pseudo-classes.

    Returns:
        A batch of one.
    """
    generator = torch.Generator().manual_seed(0)
    instances = Instances((side, side))
    instances.gt_boxes = RotatedBoxes(random_rotated_boxes(num_objects, side, 8, side / 8))
    instances.gt_classes = torch.randint(num_classes, (num_objects,), generator=generator)

    embeddings = torch.randn(num_objects, embedding_dim, generator=generator)
    instances.gt_embeddings = F.normalize(embeddings, dim=1)
    image = torch.randint(0, 256, (3, side, side), generator=generator, dtype=torch.uint8)
    return [{"image": image, "instances": instances}]


def training_step(
    build: Callable[[], nn.Module], side: int, num_objects: int
) -> Callable[[], torch.Tensor]:
    """Make a step as a function without arguments; its first call builds the model.

    Args:
        build: function that makes a pre-training model.
        side: side of the image, pixels.
        num_objects: number of objects on the image.

    Returns:
        The function; it returns the total loss.
    """

    @cache
    def prepare() -> tuple[nn.Module, torch.optim.Optimizer, list[dict]]:
        torch.manual_seed(0)
        model = build().train()
        parameters = [p for p in model.parameters() if p.requires_grad]
        batch = make_batch(side, num_objects, model.embedding_dim, model.num_classes)
        # Only trainable parameters: the frozen backbone has no state in the optimizer.
        return model, torch.optim.AdamW(parameters, lr=1e-6), batch

    def step() -> torch.Tensor:
        model, optimizer, batch = prepare()
        optimizer.zero_grad()
        total = sum(model(batch).values())
        total.backward()
        optimizer.step()
        return total.detach()

    return step


def build_mutdet() -> nn.Module:
    """Build MutDet as configured."""
    return instantiate(get_config("MutDet/configs/models/mutdet_r50.py").model)


def build_plain_twice() -> nn.Module:
    """Build the same detector, decoded twice."""
    model = get_config("MutDet/configs/models/detreg_r50.py").model
    model._target_ = PlainTwice
    return instantiate(model)


def cases() -> list[Case]:
    """List the step at the paper's image size."""
    size = f"1 image of {SIDE} px, {NUM_OBJECTS} objects"
    return [
        Case(
            name="MutDet pre-training step",
            size=size,
            ours=training_step(build_mutdet, SIDE, NUM_OBJECTS),
            peers={
                "plain detector, decoded twice": training_step(build_plain_twice, SIDE, NUM_OBJECTS)
            },
            note="frozen ResNet-50, 6 + 6 layers, 300 queries; goal: at most 1.6 times the peer",
        )
    ]
