"""The official checkpoint's names, shapes and golden values, and models of toy size."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances

from rsd2.projects.micml.dla import StaticBranch
from rsd2.projects.micml.dynamic import DynamicBranch
from rsd2.projects.micml.motion import MotionModule

Shapes = Iterator[tuple[str, tuple[int, ...]]]


def _norm(name: str, width: int) -> Shapes:
    yield from ((f"{name}.{part}", (width,)) for part in ("weight", "bias"))
    yield from ((f"{name}.running_{part}", (width,)) for part in ("mean", "var"))
    yield f"{name}.num_batches_tracked", ()


def _tree(name: str, inputs: int, width: int, root: int, projects: bool) -> Shapes:
    for block, first in (("tree1", inputs), ("tree2", width)):
        for layer, channels in ((1, first), (2, width)):
            yield f"{name}.{block}.conv{layer}.weight", (width, channels, 3, 3)
            yield from _norm(f"{name}.{block}.bn{layer}", width)
    yield f"{name}.root.conv.weight", (width, root, 1, 1)
    yield from _norm(f"{name}.root.bn", width)
    if projects:
        yield from _project(name, inputs, width)


def _project(name: str, inputs: int, width: int) -> Shapes:
    yield f"{name}.project.0.weight", (width, inputs, 1, 1)
    yield from _norm(f"{name}.project.1", width)


def _backbone() -> Shapes:
    for name, inputs, width, size in (
        ("base_layer", 3, 16, 7),
        ("level0", 16, 16, 3),
        ("level1", 16, 32, 3),
    ):
        yield f"base.{name}.0.weight", (width, inputs, size, size)
        yield from _norm(f"base.{name}.1", width)
    yield from _tree("base.level2", 32, 64, 128, True)
    for level, inputs, width in ((3, 64, 128), (4, 128, 256)):
        name = f"base.level{level}"
        yield from _tree(f"{name}.tree1", inputs, width, 2 * width, True)
        yield from _tree(f"{name}.tree2", width, width, 3 * width + inputs, False)
        yield from _project(name, inputs, width)
    yield from _tree("base.level5", 256, 512, 1280, True)


def _ida(name: str, width: int, inputs: list[int], kernels: list[int]) -> Shapes:
    for number, (channels, kernel) in enumerate(zip(inputs, kernels), start=1):
        for unit, first in ((f"proj_{number}", channels), (f"node_{number}", width)):
            yield from _norm(f"{name}.{unit}.actf.0", width)
            yield f"{name}.{unit}.conv.weight", (width, first, 3, 3)
            yield f"{name}.{unit}.conv.bias", (width,)
            yield f"{name}.{unit}.conv.conv_offset_mask.weight", (27, first, 3, 3)
            yield f"{name}.{unit}.conv.conv_offset_mask.bias", (27,)
        yield f"{name}.up_{number}.weight", (width, 1, kernel, kernel)


def _motion() -> Shapes:
    name = "base3d.Motion"
    for cells in ("cell_list", "cell_list2"):
        for layer in range(3):
            yield f"{name}.{cells}.{layer}.conv.weight", (256, 128, 3, 3)
            yield f"{name}.{cells}.{layer}.conv.bias", (256,)
    for layer, width, inputs in (("w0", 64, 4096), ("w1", 64, 64), ("w2", 64, 64)):
        yield f"{name}.{layer}.weight", (width, inputs)
        yield f"{name}.{layer}.bias", (width,)
    for attention in ("se1", "se2"):
        yield f"{name}.{attention}.fc.0.weight", (32, 64)
        yield f"{name}.{attention}.fc.2.weight", (64, 32)
    yield f"{name}.conv1.0.weight", (64, 640, 1, 1)
    yield from _norm(f"{name}.conv1.1", 64)
    yield f"{name}.mapping.0.weight", (64, 128)
    yield f"{name}.mapping.2.weight", (64, 64)


def _official() -> Shapes:
    yield from _backbone()
    for step, (width, inputs) in enumerate(((128, 256), (64, 128), (32, 64), (16, 32))):
        yield from _ida(f"dla_up.ida_{step}", width, [inputs] * (step + 1), [4] * (step + 1))
    for stage, (inputs, width, size) in enumerate(((3, 16, 5), (16, 32, 3), (32, 64, 3)), start=1):
        for index, kernel in enumerate(((1, 1, size), (1, size, 1), (3, 1, 1))):
            name = f"base3d.branch{stage}.{index}"
            yield f"{name}.conv.weight", (width, width if index else inputs, *kernel)
            yield from _norm(f"{name}.bn", width)
    yield from _ida("base3d.dla_up.ida_0", 32, [64], [4])
    yield from _ida("base3d.dla_up.ida_1", 16, [32, 32], [4, 4])
    yield from _motion()
    yield from _ida("ida_up", 16, [32, 64], [4, 8])
    for name, width in (("hm", 1), ("wh", 2), ("reg", 2)):
        yield f"{name}.0.weight", (128, 16, 3, 3)
        yield f"{name}.0.bias", (128,)
        yield f"{name}.2.weight", (width, 128, 1, 1)
        yield f"{name}.2.bias", (width,)


def _fill(key: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Value of an entry by the rule of the golden set, float64."""
    if key.endswith("num_batches_tracked"):
        return torch.tensor(0)
    seed = zlib.crc32(key.replace("cell_list2", "cell_list").encode())
    z = np.random.RandomState(seed).standard_normal(shape)
    if key.endswith("running_var"):
        z = np.exp(0.2 * z)
    elif len(shape) == 1:
        is_scale = key.endswith(".weight")
        z = 1 + 0.1 * z if is_scale else 0.1 * z
    else:
        factor = 0.1 if "conv_offset_mask" in key else 1.0
        z = factor * z / np.sqrt(np.prod(shape[1:]))
    return torch.from_numpy(z)


@pytest.fixture(scope="session")
def official() -> dict[str, torch.Tensor]:
    """An official MICML checkpoint, filled by the rule of the golden set."""
    return {key: _fill(key, shape) for key, shape in _official()}


@pytest.fixture
def toy_branches() -> Callable[..., dict]:
    """The branches of a toy model: 3 frames' motion or none, one branch or both."""

    def build(static: bool = True, dynamic: bool = True, motion: bool = True, **options) -> dict:
        module = MotionModule(8, pool_size=4, num_layers=2, **options) if motion else None
        return {
            "static": StaticBranch([4, 6, 8, 8, 8]) if static else None,
            "dynamic": DynamicBranch([4, 6, 8], module) if dynamic else None,
        }

    return build


@pytest.fixture
def make_clips() -> Callable[..., list[dict]]:
    """A batch as the mapper gives it, a dict for each size."""

    def make(*sizes: tuple[int, int], num_objects: int = 3, num_frames: int = 5) -> list[dict]:
        generator = torch.Generator().manual_seed(0)
        batch = []
        for height, width in sizes:
            corners = torch.rand(num_objects, 2, generator=generator)
            corners *= torch.tensor([width - 6.0, height - 6.0])
            instances = Instances((height, width))
            instances.gt_boxes = Boxes(torch.cat([corners, corners + 5], dim=1))
            instances.gt_classes = torch.zeros(num_objects, dtype=torch.long)
            shape = (num_frames, 3, height, width)
            frames = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
            batch.append({"frames": frames, "instances": instances})
        return batch

    return make
