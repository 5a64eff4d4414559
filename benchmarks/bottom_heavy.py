"""Bottom-heavy against plain ResNets, and SSPNet against FPN, on one image of TinyPerson's windows.

Equal multiply-adds are neither equal time nor equal memory: the bottom-heavy stem works on maps of
the image's full resolution.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import torch
from detectron2.modeling.backbone.fpn import FPN, LastLevelMaxPool
from fvcore.nn import FlopCountAnalysis
from torch import nn

from benchmarks.harness import Case
from rsd2.modeling import BottomHeavyResNet
from rsd2.projects.bottom_heavy.sspnet import SSPNet

SIZE = (512, 640)
PLAIN: dict[str, Any] = {"stem_kernel_size": 7, "stem_stride": 2, "stage_strides": (1, 2, 2, 2)}
R50 = {**PLAIN, "depths": (3, 4, 6, 3)}
R18 = {**PLAIN, "depths": (2, 2, 2, 2), "bottleneck": False}
BH18 = {"depths": (3, 2, 2, 1), "bottleneck": False}


def cases() -> list[Case]:
    """List cases of inference and training, of backbones alone and with their pyramids."""
    return [
        backbone_case("BH-50", {}, "R-50", R50, training=False),
        backbone_case("BH-50", {}, "R-50", R50, training=True),
        backbone_case("BH-18", BH18, "R-18", R18, training=False),
        backbone_case("BH-18", BH18, "R-18", R18, training=True),
        backbone_case("BH-50, anti-aliased", {"antialias": True}, "R-50", R50, training=False),
        pyramid_case(),
    ]


def backbone_case(
    name: str, ours: Mapping[str, Any], peer: str, theirs: Mapping[str, Any], *, training: bool
) -> Case:
    """Time the forward pass of two backbones, or forward and backward.

    Args:
        name: name of ours.
        ours: arguments of `BottomHeavyResNet`.
        peer: name of the peer.
        theirs: arguments of the peer.
        training: whether to compute the gradients of all parameters.
    """
    # Built at the first call; the default argument binds the value of the loop.
    models = [cache(lambda o=options: BottomHeavyResNet(**o)) for options in (ours, theirs)]
    first, second = (_work(model, training) for model in models)
    kind = "training" if training else "inference"
    return Case(
        f"{name} {kind}",
        f"1 image of {SIZE[1]} x {SIZE[0]} pixels",
        first,
        {peer: second},
        note=f"{name}: {_cost(BottomHeavyResNet(**ours))}; {peer}: "
        f"{_cost(BottomHeavyResNet(**theirs))}",
        is_slow=training,
    )


def pyramid_case() -> Case:
    """Time the forward pass of SSPNet and FPN on the bottom-heavy ResNet-50."""
    options = {"out_channels": 256, "top_block": LastLevelMaxPool()}
    sspnet = cache(lambda: SSPNet(BottomHeavyResNet(), **options))
    names = ["res2", "res3", "res4", "res5"]
    fpn = cache(lambda: FPN(BottomHeavyResNet(), names, **options))

    return Case(
        "BH-50 with SSPNet inference",
        f"1 image of {SIZE[1]} x {SIZE[0]} pixels",
        _work(sspnet, training=False),
        {"BH-50 with FPN": _work(fpn, training=False)},
        note=f"SSPNet: {_cost(SSPNet(BottomHeavyResNet(), **options))}; "
        f"FPN: {_cost(FPN(BottomHeavyResNet(), names, **options))}",
    )


def _work(model: Callable[[], nn.Module], training: bool) -> Callable[[], object]:
    """Make a call that builds the model and the image at its first run and keeps them."""
    image = cache(lambda: torch.randn(1, 3, *SIZE, generator=torch.Generator().manual_seed(0)))

    def run() -> object:
        net = model().train(training)
        with torch.set_grad_enabled(training):
            outputs = net(image())
            if training:
                net.zero_grad()
                # The mean of every output sends a gradient to all parameters.
                sum(value.mean() for value in outputs.values()).backward()
        return outputs

    return run


def _cost(model: nn.Module) -> str:
    """Count parameters and multiply-adds of the convolutions, on a sixteenth of the area."""
    small = torch.zeros(1, 3, *(side // 4 for side in SIZE))
    analysis = FlopCountAnalysis(model.eval(), small)
    analysis.unsupported_ops_warnings(False).tracer_warnings("none")
    analysis.uncalled_modules_warnings(False)
    # Convolutions are linear in the area: counting on a sixteenth is exact, and faster.
    multiply_adds = 16 * analysis.by_operator()["conv"]
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return f"{parameters / 1e6:.2f} M parameters, {multiply_adds / 1e9:.2f} GMAC"
