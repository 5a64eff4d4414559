"""Channel mapper: shapes, normalisation, and errors that name the features."""

from __future__ import annotations

import pytest
import torch
from detectron2.layers import ShapeSpec
from torch import nn

from rsd2.modeling import ChannelMapper

SHAPES = {
    "res3": ShapeSpec(channels=6, stride=8),
    "res4": ShapeSpec(channels=10, stride=16),
    "res5": ShapeSpec(channels=12, stride=32),
}


def features(height=16, width=24):
    return {
        name: torch.randn(2, s.channels, height * 8 // s.stride, width * 8 // s.stride)
        for name, s in SHAPES.items()
    }


def test_shapes_of_the_levels():
    neck = ChannelMapper(SHAPES, ["res3", "res4", "res5"], 16, 5, num_norm_groups=4)
    levels = neck(features())
    sizes = [(16, 24), (8, 12), (4, 6), (2, 3), (1, 2)]
    assert [tuple(level.shape) for level in levels] == [(2, 16, *size) for size in sizes]


def test_first_extra_level_reads_the_raw_features():
    neck = ChannelMapper(SHAPES, ["res3", "res5"], 16, 3, num_norm_groups=4)
    given = features()
    assert torch.equal(neck(given)[2], neck.extra[0](given["res5"]))


def test_every_level_is_group_normalised_and_convolutions_have_no_bias():
    neck = ChannelMapper(SHAPES, ["res3", "res4", "res5"], 16, 4, num_norm_groups=4)
    for level in neck(features()):
        groups = level.reshape(2, 4, -1)
        assert torch.allclose(groups.mean(-1), torch.zeros(2, 4), atol=1e-5)
        assert torch.allclose(groups.std(-1, correction=0), torch.ones(2, 4), atol=1e-3)
    assert all(m.bias is None for m in neck.modules() if isinstance(m, nn.Conv2d))


def test_scale_of_the_features_does_not_matter():
    neck = ChannelMapper(SHAPES, ["res3"], 16, 2, num_norm_groups=4).double()
    given = {"res3": torch.randn(1, 6, 8, 8).double()}
    scaled = {"res3": 50 * given["res3"]}
    for a, b in zip(neck(given), neck(scaled)):
        assert torch.allclose(a, b, atol=1e-3)


def test_missing_features_are_named_with_those_there_are():
    with pytest.raises(ValueError, match=r"\['res6'\].*res3.*res4.*res5"):
        ChannelMapper(SHAPES, ["res3", "res6"])


def test_fewer_levels_than_features_are_refused():
    with pytest.raises(ValueError, match="num_levels 1"):
        ChannelMapper(SHAPES, ["res3", "res4"], num_levels=1)
