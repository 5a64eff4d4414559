"""The neck of SSPNet against a plain construction from its formulas."""

import pytest
import torch
from detectron2.modeling import BACKBONE_REGISTRY
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from torch import nn
from torch.nn import functional as F

from rsd2.modeling import BottomHeavyResNet
from rsd2.projects.bottom_heavy.sspnet import (
    ATTENTION_PREFIX,
    ContextAttention,
    DilatedPyramid,
    SSPNet,
)


@pytest.fixture
def backbone():
    return BottomHeavyResNet(depths=(1, 1, 1, 1), bottleneck=False, width=8)


@pytest.fixture
def neck(backbone):
    return SSPNet(backbone, out_channels=32, top_block=LastLevelMaxPool())


def count(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("norm", ["GN", "BN"])
def test_has_the_published_number_of_parameters(norm):
    with torch.device("meta"):
        neck = SSPNet(BottomHeavyResNet(), attention_norm=norm, top_block=LastLevelMaxPool())
    assert count(neck) - count(neck.bottom_up) == 8_992_004
    assert count(neck.context_attention) == 5_647_620


def plain_attention(cam, laterals):
    """Section 2.1 of the method, step 2, with explicit loops for the resize."""
    height, width = laterals[0].shape[-2:]
    stacked = []
    for level, x in enumerate(laterals):
        rows = torch.arange(height) // 2**level
        columns = torch.arange(width) // 2**level
        stacked.append(x[:, :, rows][:, :, :, columns])
    x = F.conv2d(torch.cat(stacked, 1), cam.reduce.weight, cam.reduce.bias, padding=1)
    a, b, c, d = cam.context.branches
    branches = [
        F.conv2d(x, a.weight, a.bias),
        F.conv2d(x, b.weight, b.bias, padding=2, dilation=2),
        F.conv2d(x, c.weight, c.bias, padding=5, dilation=5),
    ]
    mean = F.conv2d(x.mean((2, 3))[:, :, None, None], d.weight, d.bias)
    branches.append(mean.expand(-1, -1, height, width))
    x = cam.fuse.norm(
        F.conv2d(torch.cat(branches, 1).relu(), cam.fuse.weight, cam.fuse.bias, padding=1)
    )
    x, attention = x.relu(), []
    for level, (down, attend) in enumerate(zip(cam.descend, cam.attend)):
        x = F.conv2d(x, down.weight, down.bias, padding=1, stride=1 if level == 0 else 2)
        attention.append(F.conv2d(x, attend.weight, attend.bias, padding=1).sigmoid())
    return attention


def test_computes_the_formulas(neck):
    for parameter in neck.parameters():  # zero biases and identity norms would hide a mistake
        parameter.data += 0.1 * torch.randn_like(parameter)
    images = torch.randn(2, 3, 64, 96)
    neck.train()
    with torch.no_grad():
        outputs = neck(images)
        neck.bottom_up.train()
        features = neck.bottom_up(images)
        convs = [getattr(neck, f"fpn_lateral{i}") for i in (2, 3, 4, 5)]
        levels = [conv(features[f"res{i + 2}"]) for i, conv in enumerate(convs)]
        a = plain_attention(neck.context_attention, levels)
        levels = [(1 + x) * y for x, y in zip(a, levels)]
        for i in (3, 2, 1):
            up = [F.interpolate(x, scale_factor=2) for x in (a[i], levels[i])]
            levels[i - 1] = levels[i - 1] + a[i - 1] * up[0] * up[1]
        for i, (x, level) in enumerate(zip(a, levels)):
            expected = (1 + x) * getattr(neck, f"fpn_output{i + 2}")(level)
            assert torch.allclose(outputs[f"p{i + 2}"], expected, atol=1e-4)
            logits = outputs[f"{ATTENTION_PREFIX}p{i + 2}"]
            assert torch.allclose(logits.sigmoid(), x, atol=1e-5)
        assert torch.equal(outputs["p6"], outputs["p5"][:, :, ::2, ::2])


def test_gives_attention_in_training_only(neck):
    images = torch.randn(1, 3, 64, 64)
    names = {"p2", "p3", "p4", "p5", "p6"}
    assert neck.eval()(images).keys() == names == neck.output_shape().keys()
    extra = {f"attention_p{i}" for i in (2, 3, 4, 5)}
    assert neck.train()(images).keys() == names | extra


def test_output_shape_is_what_forward_gives(neck):
    outputs = neck.eval()(torch.randn(1, 3, 128, 64))
    for name, shape in neck.output_shape().items():
        assert outputs[name].shape == (1, shape.channels, 128 // shape.stride, 64 // shape.stride)
    assert neck.size_divisibility == 32


def test_every_parameter_learns(neck):
    neck.train()
    outputs = neck(torch.randn(2, 3, 64, 64))
    sum(v.square().sum() for v in outputs.values()).backward()
    assert all(p.grad is not None for p in neck.parameters())


def test_without_attention_a_level_keeps_to_itself(neck):
    """Where no level attends, nothing comes down from coarser levels."""
    neck.eval()
    for attend in neck.context_attention.attend:
        nn.init.zeros_(attend.weight)
        nn.init.constant_(attend.bias, -100.0)
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        features = neck.bottom_up(images)
        expected = neck.fpn_output2(neck.fpn_lateral2(features["res2"]))
        assert torch.allclose(neck(images)["p2"], expected, atol=1e-6)


def test_starts_from_xavier_weights_and_zero_biases(neck):
    own = [m for n, m in neck.named_modules() if not n.startswith("bottom_up")]
    convs = [m for m in own if isinstance(m, nn.Conv2d)]
    assert len(convs) == 8 + 2 + 4 + 8
    for conv in convs:
        assert not conv.bias.any()
        fan_in = conv.weight[0].numel()
        fan_out = conv.weight.shape[0] * conv.weight[0, 0].numel()
        assert conv.weight.abs().max() <= (6 / (fan_in + fan_out)) ** 0.5


def test_a_width_that_does_not_divide_is_refused():
    with pytest.raises(ValueError, match="multiple of 4, got 6"):
        DilatedPyramid(6)


def test_odd_levels_fit():
    maps = ContextAttention(32, 3)([torch.randn(1, 32, n, n) for n in (13, 7, 4)])
    assert [tuple(m.shape) for m in maps] == [(1, 1, n, n) for n in (13, 7, 4)]


def test_is_found_by_name():
    assert BACKBONE_REGISTRY.get("SSPNet") is SSPNet
