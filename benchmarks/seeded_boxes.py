"""Seeded boxes and scores like those of overhead scenes, for timing."""

from __future__ import annotations

import math

import torch
from torch import Tensor

SCENE_SIDE = 1024.0


def uniform(number: int, seed: int) -> Tensor:
    """Draw boxes all over a scene: long side log-uniform 8-400 px, aspect log-uniform 1-10.

    Args:
        number: number of boxes.
        seed: seed of the generator.

    Returns:
        (number, 5) float32 boxes (cx, cy, w, h, angle in degrees).
    """
    u = torch.rand(number, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    long_side = 8 * 50 ** u[:, 2]
    short_side = long_side / 10 ** u[:, 3]
    angle = 180 * u[:, 4] - 90
    centers = SCENE_SIDE * u[:, :2]

    boxes = torch.cat([centers, torch.stack([long_side, short_side, angle], dim=1)], dim=1)
    return boxes.float()


def dense(number: int, seed: int) -> Tensor:
    """Draw grids of 64 small boxes that nearly touch and share an orientation, like car parks.

    Args:
        number: number of boxes.
        seed: seed of the generator.

    Returns:
        (number, 5) float32 boxes.
    """
    generator = torch.Generator().manual_seed(seed)
    grids = math.ceil(number / 64)
    u = torch.rand(grids, 1, 5, generator=generator, dtype=torch.float64)
    w, h = 12 + 12 * u[..., 2], 5 + 5 * u[..., 3]
    angle = 180 * u[..., 4] - 90

    # Eight by eight places of a car park, a little wider than the boxes.
    place = torch.arange(64, dtype=torch.float64)
    along, down = (place % 8 - 3.5) * 1.02 * w, (place // 8 - 3.5) * 1.02 * h
    cos, sin = torch.deg2rad(angle).cos(), torch.deg2rad(angle).sin()
    cx = SCENE_SIDE * u[..., 0] + cos * along + sin * down
    cy = SCENE_SIDE * u[..., 1] - sin * along + cos * down

    boxes = torch.stack([cx, cy, *(x.expand(grids, 64) for x in (w, h, angle))], dim=-1)
    boxes = boxes.flatten(0, 1)
    # Exactly equal boxes would be unusually kind to branches and caches.
    boxes[:, 2:] += 0.2 * torch.rand(len(boxes), 3, generator=generator, dtype=torch.float64)
    return boxes[:number].float()


def mix(number: int, seed: int) -> Tensor:
    """Draw half of the boxes uniformly, half densely.

    Args:
        number: number of boxes.
        seed: seed of the generators.

    Returns:
        (number, 5) float32 boxes.
    """
    return torch.cat([uniform(number - number // 2, seed), dense(number // 2, seed)])


def candidates(number: int, classes: int, per_object: float, seed: int) -> tuple[Tensor, ...]:
    """Draw detections before suppression: jittered copies of objects, the rest background.

    Args:
        number: number of candidates; a fifth of them is background if ``per_object`` > 2.
        classes: number of classes; an object and all of its copies have one class.
        per_object: mean number of copies of each object.
        seed: seed of the generators.

    Returns:
        Boxes (number, 5) float32, scores (number,) float32, classes (number,) int64.
    """
    generator = torch.Generator().manual_seed(seed)
    background = number // 5 if per_object > 2 else 0
    objects = max(1, round((number - background) / per_object))

    centers = mix(objects, seed)
    owner = torch.randint(objects, (number - background,), generator=generator)
    copies = centers[owner]
    # Centres move by a share of the shorter side, so that copies of thin boxes still overlap.
    side = copies[:, 2:4].amin(1, keepdim=True)
    copies[:, :2] += 0.08 * side * torch.randn(len(copies), 2, generator=generator)
    copies[:, 2:4] *= torch.exp(0.08 * torch.randn(len(copies), 2, generator=generator))
    copies[:, 4] += 3 * torch.randn(len(copies), generator=generator)

    boxes = torch.cat([copies, uniform(background, seed + 1)])
    labels = torch.randint(classes, (objects,), generator=generator)[owner]
    labels = torch.cat([labels, torch.randint(classes, (background,), generator=generator)])
    scores = torch.rand(number, generator=generator)
    order = torch.randperm(number, generator=generator)
    return boxes[order], scores[order], labels[order]
