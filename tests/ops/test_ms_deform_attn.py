import importlib
import math

import pytest
import torch

from rsd2.ops import ms_deform_attn

SHAPES = [(5, 7), (3, 4), (1, 1)]
LENGTH = sum(h * w for h, w in SHAPES)


def definition(value, shapes, locations, weights):
    """One sample at a time, from the equation; pixel centres at half pixels, zeros outside."""
    batch, _, heads, channels = value.shape
    _, queries, _, levels, points, _ = locations.shape
    result = torch.zeros(batch, queries, heads, channels, dtype=torch.float64)
    for b in range(batch):
        for q in range(queries):
            for m in range(heads):
                start = 0
                for level in range(levels):
                    height, width = shapes[level]
                    for p in range(points):
                        x, y = locations[b, q, m, level, p].double().tolist()
                        x, y = x * width - 0.5, y * height - 0.5
                        left, top = math.floor(x), math.floor(y)
                        for i in (top, top + 1):
                            for j in (left, left + 1):
                                if 0 <= i < height and 0 <= j < width:
                                    share = (1 - abs(x - j)) * (1 - abs(y - i))
                                    row = value[b, start + i * width + j, m].double()
                                    share *= weights[b, q, m, level, p].item()
                                    result[b, q, m] += share * row
                    start += height * width
    return result.flatten(2)


def inputs(batch=2, queries=5, heads=3, channels=4, points=2, dtype=torch.float64, spread=1.6):
    generator = torch.Generator().manual_seed(0)
    sizes = (batch, queries, heads, len(SHAPES), points)
    value = torch.randn(batch, LENGTH, heads, channels, generator=generator, dtype=dtype)
    locations = torch.rand(*sizes, 2, generator=generator, dtype=dtype) * spread - (spread - 1) / 2
    weights = torch.rand(*sizes, generator=generator, dtype=dtype)
    return value, locations, weights


class TestValues:
    @pytest.mark.parametrize(("dtype", "tol"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
    def test_equals_the_definition(self, dtype, tol):
        value, locations, weights = inputs(dtype=dtype)
        result = ms_deform_attn(value, SHAPES, locations, weights)
        assert result.shape == (2, 5, 12) and result.dtype == dtype
        expected = definition(value, SHAPES, locations, weights)
        torch.testing.assert_close(result.double(), expected, rtol=0, atol=tol)

    def test_shapes_as_tensor(self):
        value, locations, weights = inputs()
        one = ms_deform_attn(value, SHAPES, locations, weights)
        assert torch.equal(ms_deform_attn(value, torch.tensor(SHAPES), locations, weights), one)

    def test_by_hand(self):
        value = torch.arange(1.0, 5).view(1, 4, 1, 1)  # [[1, 2], [3, 4]]
        at = torch.tensor([[0.25, 0.25], [0.75, 0.25], [0.5, 0.5], [0.0, 0.0], [-1.0, 0.5]])
        locations = at.view(1, 5, 1, 1, 1, 2)
        result = ms_deform_attn(value, [(2, 2)], locations, torch.ones(1, 5, 1, 1, 1))
        # On a pixel centre, between all four, on the outer corner (a quarter), outside.
        assert result.flatten().tolist() == [1, 2, 2.5, 0.25, 0]

    def test_constant_maps_give_the_sum_of_weights_inside(self):
        value, _, weights = inputs()
        locations = torch.full((*weights.shape, 2), 0.5, dtype=torch.float64)
        result = ms_deform_attn(torch.ones_like(value), SHAPES, locations, weights)
        expected = weights.sum((3, 4)).repeat_interleave(4, 2)
        torch.testing.assert_close(result, expected)

    def test_heads_and_images_do_not_mix(self):
        value, locations, weights = inputs()
        changed = value.clone()
        changed[0, :, 1] += 1
        difference = ms_deform_attn(changed, SHAPES, locations, weights)
        difference = difference - ms_deform_attn(value, SHAPES, locations, weights)
        touched = difference.view(2, 5, 3, 4).abs().amax((1, 3)) > 0
        assert touched.tolist() == [[False, True, False], [False] * 3]

    @pytest.mark.parametrize("budget", [1, 100])
    def test_portions_do_not_change_the_result(self, budget, monkeypatch):
        value, locations, weights = inputs()
        expected = ms_deform_attn(value, SHAPES, locations, weights)
        module = importlib.import_module("rsd2.ops.ms_deform_attn")
        monkeypatch.setattr(module, "SAMPLE_BUDGET", budget)
        result = ms_deform_attn(value, SHAPES, locations, weights)
        torch.testing.assert_close(result, expected)

    def test_strided_input(self):
        value, locations, weights = inputs()
        strided = value.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0)
        torch.testing.assert_close(
            ms_deform_attn(strided, SHAPES, locations, weights),
            ms_deform_attn(value, SHAPES, locations, weights),
        )


class TestGradient:
    def test_gradcheck(self):
        value, locations, weights = inputs(batch=1, queries=2, heads=2, channels=3)
        for tensor in (value, locations, weights):
            tensor.requires_grad_()
        assert torch.autograd.gradcheck(
            lambda v, x, a: ms_deform_attn(v, SHAPES, x, a), (value, locations, weights)
        )

    def test_far_outside_is_zero_and_finite(self):
        value, locations, weights = inputs()
        locations = (locations * 1e6 + 1e5).requires_grad_()
        result = ms_deform_attn(value, SHAPES, locations, weights)
        result.sum().backward()
        assert (result == 0).all() and locations.grad.isfinite().all()


class TestPrecision:
    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_sums_in_float32(self, dtype):
        value, locations, weights = inputs(dtype=torch.float32)
        low = [tensor.to(dtype) for tensor in (value, locations, weights)]
        result = ms_deform_attn(low[0], SHAPES, low[1], low[2])
        assert result.dtype == dtype
        exact = ms_deform_attn(low[0].float(), SHAPES, low[1].float(), low[2].float())
        assert torch.equal(result, exact.to(dtype))

    def test_autocast_lowers_nothing(self):
        value, locations, weights = inputs(dtype=torch.float32)
        expected = ms_deform_attn(value, SHAPES, locations, weights)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            result = ms_deform_attn(value, SHAPES, locations, weights)
        assert torch.equal(result, expected)


class TestShapes:
    def test_no_queries_or_images(self):
        value, locations, weights = inputs(queries=0)
        value.requires_grad_()
        result = ms_deform_attn(value, SHAPES, locations, weights)
        assert result.shape == (2, 0, 12)
        result.sum().backward()
        assert (value.grad == 0).all()
        value, locations, weights = inputs(batch=0)
        assert ms_deform_attn(value, SHAPES, locations, weights).shape == (0, 5, 12)

    def test_mismatches_are_named(self):
        value, locations, weights = inputs()
        with pytest.raises(ValueError, match="48 positions.*have 51"):
            ms_deform_attn(value, [(5, 7), (4, 4)], locations, weights)
        with pytest.raises(ValueError, match="attention_weights"):
            ms_deform_attn(value, SHAPES, locations, weights[:, :3])
        with pytest.raises(ValueError, match="sampling_locations"):
            ms_deform_attn(value, SHAPES, locations[..., :1], weights)
        with pytest.raises(ValueError, match="value"):
            ms_deform_attn(value[0], SHAPES, locations, weights)
        with pytest.raises(ValueError, match=r"\(0, 7\)"):
            ms_deform_attn(value, [(0, 7)], locations, weights)
