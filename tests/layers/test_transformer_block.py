"""Attention and blocks against slow oracles; what windows and relative positions may not change."""

import math

import pytest
import torch
from detectron2.modeling.backbone.vit import Attention as Detectron2Attention
from torch.nn import functional as F

from rsd2.layers import Attention, Block, init_transformer_weights


def attention(dim=12, heads=3, grid=None, dtype=torch.float64):
    """Attention with nothing at zero."""
    module = Attention(dim, heads, relative_grid=grid).to(dtype)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return module


def slow_attention(module, x, grid=None):
    """One token, one head, one pair at a time."""
    batch, length, dim = x.shape
    size = dim // module.num_heads
    result = torch.zeros_like(x)
    for b in range(batch):
        q, k, v = F.linear(x[b], module.qkv.weight, module.qkv.bias).split(dim, dim=1)
        for head in range(module.num_heads):
            part = slice(head * size, (head + 1) * size)
            for i in range(length):
                logits = []
                for j in range(length):
                    logit = (q[i, part] * k[j, part]).sum() / math.sqrt(size)
                    if grid is not None:
                        (h, w), rows, columns = grid, module.rel_pos_h, module.rel_pos_w
                        logit = logit + q[i, part] @ rows[i // w - j // w + h - 1]
                        logit = logit + q[i, part] @ columns[i % w - j % w + w - 1]
                    logits.append(logit)
                result[b, i, part] = torch.stack(logits).softmax(0) @ v[:, part]
    return F.linear(result, module.proj.weight, module.proj.bias)


def test_equals_the_slow_oracle():
    module, x = attention(), torch.randn(2, 5, 12, dtype=torch.float64)
    assert torch.allclose(module(x), slow_attention(module, x), atol=1e-12)


def test_relative_positions_equal_the_slow_oracle_on_a_map_that_is_not_square():
    module, x = attention(grid=(2, 3)), torch.randn(2, 6, 12, dtype=torch.float64)
    expected = slow_attention(module, x, (2, 3))
    assert torch.allclose(module(x, (2, 3)), expected, atol=1e-12)
    assert not torch.allclose(module(x), expected, atol=1e-3)


@pytest.mark.parametrize("size", [(4, 6), (7, 3)], ids=["own size", "resampled"])
def test_equals_detectron2_with_its_relative_positions(size):
    ours = attention(grid=(4, 6))
    theirs = Detectron2Attention(12, 3, use_rel_pos=True, input_size=(4, 6)).double()
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, *size, 12, dtype=torch.float64)
    result = ours(x.flatten(1, 2), size)
    assert torch.allclose(result, theirs(x).flatten(1, 2), atol=1e-12)


def test_relative_positions_start_without_effect_and_learn():
    module = Attention(8, 2, relative_grid=(2, 2))
    x = torch.randn(1, 4, 8)
    assert torch.allclose(module(x, (2, 2)), module(x), atol=1e-6)
    module(x, (2, 2)).square().sum().backward()
    assert module.rel_pos_h.grad.abs().sum() > 0 and module.rel_pos_w.grad.abs().sum() > 0


def test_gradients():
    module = attention(dim=4, heads=2, grid=(2, 2))
    x = torch.randn(1, 4, 4, dtype=torch.float64, requires_grad=True)
    values = (x, module.rel_pos_h.detach().requires_grad_(), module.qkv.weight.detach())

    def run(tokens, rows, weight):
        parameters = {"rel_pos_h": rows, "qkv.weight": weight}
        return torch.func.functional_call(module, parameters, (tokens, (2, 2)))

    assert torch.autograd.gradcheck(run, values)


def test_a_sequence_has_no_order():
    block = Block(16, 4).eval()
    x, order = torch.randn(2, 7, 16), torch.randperm(7)
    assert torch.allclose(block(x)[:, order], block(x[:, order]), atol=1e-5)


@pytest.mark.parametrize("grid", [(4, 6), (3, 5)], ids=["whole windows", "filled up"])
def test_windows_are_attended_to_one_by_one(grid):
    torch.manual_seed(1)
    block = Block(12, 3, window_size=2, relative_grid=(2, 2)).double().eval()
    torch.nn.init.normal_(block.attn.rel_pos_h)
    x = torch.randn(2, grid[0] * grid[1], 12, dtype=torch.float64)
    normed = block.norm1(x).unflatten(1, grid)
    padded = F.pad(normed, (0, 0, 0, grid[1] % 2, 0, grid[0] % 2))
    attended = torch.zeros_like(padded)
    for row in range(0, padded.shape[1], 2):
        for column in range(0, padded.shape[2], 2):
            window = padded[:, row : row + 2, column : column + 2].flatten(1, 2)
            result = block.attn(window, (2, 2)).unflatten(1, (2, 2))
            attended[:, row : row + 2, column : column + 2] = result
    y = x + attended[:, : grid[0], : grid[1]].flatten(1, 2)
    expected = y + block.mlp(block.norm2(y))
    assert torch.allclose(block(x, grid), expected, atol=1e-12)
    assert not torch.allclose(block(x), expected, atol=1e-3)  # a sequence knows no windows


def test_skipped_branches_leave_the_tokens_as_they_are_and_keep_the_mean():
    block = Block(8, 2, drop_path=0.5)
    x = torch.randn(4000, 1, 8)
    block.mlp = torch.nn.Identity()  # drop after the MLP alone would hide the first branch
    block.norm2 = torch.nn.Identity()
    with torch.no_grad():
        kept = (block(x) / x).round(decimals=3)
    assert (kept == 1).all(dim=2).float().mean() == pytest.approx(0.25, abs=0.03)
    block.eval()
    assert torch.equal(block(x), block(x))


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(ValueError, match="dim 10 .* num_heads 4"):
        Attention(10, 4)


def test_linear_layers_start_small_and_unbiased():
    block = Block(256, 4).apply(init_transformer_weights)
    weight = block.mlp.fc1.weight.detach()
    assert weight.std() == pytest.approx(0.02, rel=0.05) and not block.mlp.fc1.bias.any()


def test_bfloat16_stays_near_float32():
    torch.manual_seed(0)
    block = Block(64, 4, window_size=4, relative_grid=(4, 4)).eval()
    torch.nn.init.normal_(block.attn.rel_pos_h, std=0.1)
    x = torch.randn(2, 64, 64)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = block(x, (8, 8))
    assert rounded.dtype == torch.float32  # the residual stream keeps its precision
    assert (rounded - block(x, (8, 8))).abs().max() < 0.05
