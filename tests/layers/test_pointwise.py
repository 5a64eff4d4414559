"""Convolutions of 1 x 1 pixels: equal to PyTorch's, whichever way they are computed."""

import copy

import pytest
import torch
from torch import nn

from rsd2.layers.pointwise import PointwiseConv2d, use_pointwise_convolutions


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("shape", [(4, 6, 8, 10), (1, 6, 4, 4), (3, 6, 5, 7), (16, 6, 2, 2)])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_results_and_gradients_are_those_of_a_convolution(shape, layout):
    plain = nn.Conv2d(6, 9, 1)
    ours = copy.deepcopy(plain)
    use_pointwise_convolutions(ours)
    assert type(ours) is PointwiseConv2d and list(ours.state_dict()) == list(plain.state_dict())

    data = torch.randn(shape).to(memory_format=layout)
    weights = torch.randn(shape[0], 9, *shape[2:])
    found = []
    for module in (plain, ours):
        x = data.clone(memory_format=torch.preserve_format).requires_grad_()
        y = module(x)
        (y * weights).sum().backward()
        found.append((y, x.grad, module.weight.grad, module.bias.grad))
    for expected, value in zip(*found):
        torch.testing.assert_close(value, expected)
    assert found[1][0].is_contiguous(memory_format=layout)


def test_with_channels_last_on_one_thread_every_row_is_an_image(monkeypatch):
    seen = []
    monkeypatch.setattr(nn.Conv2d, "forward", lambda self, x: (seen.append(tuple(x.shape)), x)[1])
    module = PointwiseConv2d(6, 6, 1)
    module(torch.zeros(4, 6, 8, 10).to(memory_format=torch.channels_last))
    module(torch.zeros(4, 6, 8, 10))
    assert seen == [(32, 6, 1, 10), (4, 6, 8, 10)]


def test_a_graph_holds_for_any_number_of_images():
    module = PointwiseConv2d(6, 9, 1).eval()
    inputs = torch.randn(2, 6, 16, 4).to(memory_format=torch.channels_last)
    graph = torch.export.export(module, (inputs,), dynamic_shapes={"x": {0: torch.export.Dim("b")}})
    many = torch.randn(17, 6, 16, 4)
    torch.testing.assert_close(graph.module()(many), module(many))


def test_other_convolutions_stay():
    model = nn.Sequential(
        nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 1, stride=2), nn.Conv2d(4, 4, 1, groups=2)
    )
    use_pointwise_convolutions(model)
    assert all(type(one) is nn.Conv2d for one in model)
