"""EfficientNet-Lite0 from ImageNet: its keys in timm's names, and its maps computed once more.

Source: "EfficientNet" (arXiv 1905.11946), table 1, in the Lite variant of its authors: without
squeeze-and-excitation, with ReLU6, and with stem and head of fixed width.

Shapes: B images, C channels, H, W height and width in pixels.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch.nn import functional as F

from .conversion import Rule

REPEATS = (1, 2, 2, 3, 3, 4, 1)  # blocks of each stage
STAGE_STRIDES = (1, 2, 2, 2, 1, 2, 1)
# The stages whose output is the last one of its stride: 2, 4, 8, 16, 32.
MAP_STAGES = (0, 1, 2, 4, 6)
_BN_EPS = 1e-3

# Layers of a block in the file -> in timm. The first stage does not expand, which shifts its names.
_EXPANDING = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
_FIRST = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_OUTSIDE = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2"}


def efficientnet_lite0_rules() -> list[Rule]:
    """Map the names of the PyTorch port of 2020 to those of timm's ``tf_efficientnet_lite0``.

    Returns:
        The rules, which keep every tensor, the classifier too.
    """
    layers = [(f"{old}.", f"{new}.") for old, new in {**_OUTSIDE, "_fc": "classifier"}.items()]

    # The file numbers its blocks through, timm within each stage.
    places = [(stage, block) for stage, count in enumerate(REPEATS) for block in range(count)]
    for index, (stage, block) in enumerate(places):
        names = _FIRST if stage == 0 else _EXPANDING
        layers += [
            (f"_blocks.{index}.{old}.", f"blocks.{stage}.{block}.{new}.")
            for old, new in names.items()
        ]
    return [Rule(old.replace(".", r"\.") + r"(\w+)", new + r"\1") for old, new in layers]


def efficientnet_lite0_maps(
    state: Mapping[str, torch.Tensor], images: torch.Tensor
) -> list[torch.Tensor]:
    """Compute the maps from the tensors of the file alone, without any library of models.

    It proves a conversion: timm's model, filled with the converted tensors, must give the same.

    Args:
        state: tensors under the names of the file.
        images: (B, 3, H, W), RGB, (pixel - 127) / 128.

    Returns:
        Five maps (B, C, H / stride, W / stride) of strides 2, 4, 8, 16 and 32, sides rounded up.
    """

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        mean, var, weight, bias = (
            state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return F.batch_norm(x, mean, var, weight, bias, eps=_BN_EPS)

    def conv(x: torch.Tensor, name: str, stride: int = 1, groups: int = 1) -> torch.Tensor:
        weight = state[f"{name}.weight"]
        kernel = weight.shape[-1]
        # TensorFlow's "SAME": an odd pixel of padding goes to the right and to the bottom.
        pads = [max((-(-side // stride) - 1) * stride + kernel - side, 0) for side in x.shape[-2:]]
        height, width = pads
        x = F.pad(x, (width // 2, width - width // 2, height // 2, height - height // 2))
        return F.conv2d(x, weight, stride=stride, groups=groups)

    x = F.relu6(norm(conv(images, "_conv_stem", stride=2), "_bn0"))
    maps, index = [], 0
    for stage, count in enumerate(REPEATS):
        for block in range(count):
            name, shortcut = f"_blocks.{index}.", x
            if stage > 0:
                x = F.relu6(norm(conv(x, name + "_expand_conv"), name + "_bn0"))
            stride = STAGE_STRIDES[stage] if block == 0 else 1
            x = conv(x, name + "_depthwise_conv", stride, groups=x.shape[1])
            x = F.relu6(norm(x, name + "_bn1"))
            x = norm(conv(x, name + "_project_conv"), name + "_bn2")
            # The first block of a stage changes the size or the channels, so it has no shortcut.
            x, index = (x + shortcut if block > 0 else x), index + 1
        if stage in MAP_STAGES:
            maps.append(x)
    return maps
