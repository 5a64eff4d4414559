"""The sampled deformable convolution: torchvision's numbers and slopes, and plain convolution's."""

import pytest
import torch
from torch.nn import functional as F
from torchvision.ops import deform_conv2d

from rsd2.layers import DeformableConv2d, sampled_deform_conv2d


def tensors(batch=2, channels=3, out=4, height=6, width=9, size=3, spread=2.0):
    offset = spread * torch.randn(batch, 2 * size**2, height, width, dtype=torch.float64)
    # away from whole pixels, where both slopes of the bilinear kernel are right
    offset = offset.floor() + 0.1 + 0.8 * torch.rand_like(offset)
    values = (
        torch.randn(batch, channels, height, width, dtype=torch.float64),
        offset,
        torch.randn(out, channels, size, size, dtype=torch.float64),
        torch.randn(out, dtype=torch.float64),
        torch.rand(batch, size**2, height, width, dtype=torch.float64),
    )
    return [value.requires_grad_() for value in values]


@pytest.mark.parametrize("spread", [0.5, 2.0, 20.0], ids=["near", "far", "mostly outside"])
@pytest.mark.parametrize("shape", [(6, 9), (1, 5), (5, 1)])
@pytest.mark.parametrize("size", [1, 3, 5])
def test_equals_torchvision_and_so_do_the_gradients(shape, size, spread):
    x, offset, weight, bias, mask = leaves = tensors(
        height=shape[0], width=shape[1], size=size, spread=spread
    )
    ours = sampled_deform_conv2d(x, offset, weight, bias, mask)
    theirs = deform_conv2d(x, offset, weight, bias, padding=size // 2, mask=mask)
    assert torch.allclose(ours, theirs, rtol=0, atol=1e-12)
    direction = torch.randn_like(ours)
    for mine, other in zip(
        torch.autograd.grad(ours, leaves, direction), torch.autograd.grad(theirs, leaves, direction)
    ):
        assert torch.allclose(mine, other, rtol=0, atol=1e-11)


def test_gradients_are_those_of_finite_differences():
    inputs = tensors(batch=1, channels=2, out=2, height=3, width=4)
    assert torch.autograd.gradcheck(sampled_deform_conv2d, inputs)


def test_without_offsets_it_is_a_convolution():
    x, offset, weight, bias, _ = tensors()
    mask = torch.ones(2, 9, 6, 9, dtype=torch.float64)
    result = sampled_deform_conv2d(x, torch.zeros_like(offset), weight, bias, mask)
    assert torch.allclose(result, F.conv2d(x, weight, bias, padding=1), rtol=0, atol=1e-12)


def test_an_offset_moves_the_image():
    """Every tap one row down and two columns to the right, half as strong."""
    x, _, weight, _, _ = tensors()
    offset = torch.tensor([1.0, 2.0], dtype=torch.float64).repeat(9)[None, :, None, None]
    offset = offset.expand(2, 18, 6, 9)
    mask = torch.full((2, 9, 6, 9), 0.5, dtype=torch.float64)
    moved = F.pad(x, (0, 2, 0, 1))[:, :, 1:, 2:]
    expected = F.conv2d(F.pad(moved, (1, 1, 1, 1)), weight) / 2
    inside = (..., slice(1, None), slice(1, None))  # the padding of `expected` hides what moved in
    result = sampled_deform_conv2d(x, offset, weight, None, mask)
    assert torch.allclose(result[inside], expected[inside], rtol=0, atol=1e-12)


def test_large_frames_in_float32_are_as_good_as_torchvision_s():
    values = tensors(batch=1, height=4, width=1920)
    exact = sampled_deform_conv2d(*values)
    single = [value.detach().float() for value in values]
    x, offset, weight, bias, mask = single
    ours = (sampled_deform_conv2d(*single) - exact).abs().max()
    theirs = (deform_conv2d(x, offset, weight, bias, padding=1, mask=mask) - exact).abs().max()
    assert ours < 2 * theirs < 4e-3


def test_the_layer_has_torchvision_s_weights_and_result(device):
    x, offset, *_, mask = (value.detach().float().to(device) for value in tensors())
    layer = DeformableConv2d(3, 5).to(device)
    assert {k: tuple(v.shape) for k, v in layer.state_dict().items()} == {
        "weight": (5, 3, 3, 3),
        "bias": (5,),
    }
    expected = deform_conv2d(x, offset, layer.weight, layer.bias, padding=1, mask=mask)
    assert torch.allclose(layer(x, offset, mask), expected, rtol=0, atol=1e-4)
