import importlib
import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rsd2.layers.deformable_attention import DeformableAttention, RotatedDeformableAttention
from rsd2.ops import ms_deform_attn
from rsd2.ops.ms_deform_attn import (
    reference_ms_deform_attn,
    reference_ms_deform_attn_backward,
)

SHAPES = [(5, 7), (3, 4), (1, 1)]
LENGTH = sum(h * w for h, w in SHAPES)
FLAT = [number for pair in SHAPES for number in pair]
REFERENCES = {
    "ms_deform_attn": reference_ms_deform_attn,
    "ms_deform_attn_backward": reference_ms_deform_attn_backward,
}
pytestmark = pytest.mark.usefixtures("implementation")


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
        grad = torch.randn(2, 5, 12, dtype=torch.float64)
        arguments = (value, FLAT, locations, weights)
        expected = reference_ms_deform_attn(*arguments)
        gradients = reference_ms_deform_attn_backward(grad, *arguments)
        module = importlib.import_module("rsd2.ops.ms_deform_attn")
        monkeypatch.setattr(module, "SAMPLE_BUDGET", budget)
        torch.testing.assert_close(reference_ms_deform_attn(*arguments), expected)
        found = reference_ms_deform_attn_backward(grad, *arguments)
        torch.testing.assert_close(found, gradients)

    def test_strided_input(self):
        value, locations, weights = inputs()
        expected = ms_deform_attn(value, SHAPES, locations, weights)
        channels_apart = value.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0)
        positions_apart = torch.stack([value, value], dim=2)[:, :, 0]
        weights_apart = torch.stack([weights, weights], dim=-1)[..., 0]
        locations_apart = locations.flip(-1).contiguous().flip(-1)
        for strided in (channels_apart, positions_apart):
            result = ms_deform_attn(strided, SHAPES, locations_apart, weights_apart)
            torch.testing.assert_close(result, expected)

    @pytest.mark.parametrize("channels", [1, 3, 4, 15, 16, 32, 50])
    def test_every_number_of_channels(self, channels, dtype):
        value, locations, weights = inputs(channels=channels, dtype=dtype)
        result = ms_deform_attn(value, SHAPES, locations, weights)
        alone = [
            ms_deform_attn(value[..., c : c + 1], SHAPES, locations, weights)
            for c in range(channels)
        ]
        torch.testing.assert_close(result.unflatten(2, (3, channels)), torch.stack(alone, dim=3))

    def test_many_queries_on_few_positions(self):
        """So many that the kernel copies the values of a head."""
        value, locations, weights = inputs(queries=700, batch=1)
        result = ms_deform_attn(value, SHAPES, locations, weights)
        parts = [
            ms_deform_attn(value, SHAPES, locations[:, q : q + 1], weights[:, q : q + 1])
            for q in range(0, 700, 50)
        ]
        torch.testing.assert_close(result[:, ::50], torch.cat(parts, dim=1))


class TestGradient:
    def test_gradcheck(self):
        value, locations, weights = inputs(batch=1, queries=2, heads=2, channels=3)
        for tensor in (value, locations, weights):
            tensor.requires_grad_()
        assert torch.autograd.gradcheck(
            lambda v, x, a: ms_deform_attn(v, SHAPES, x, a), (value, locations, weights)
        )

    @pytest.mark.parametrize("queries", [1, 40])
    def test_gradients_are_those_of_the_definition(self, queries):
        """Forty queries read each position often: the kernel works on copies then."""
        tensors = inputs(batch=1, queries=queries, heads=2, channels=3)
        for tensor in tensors:
            tensor.requires_grad_()
        grad = torch.randn(1, queries, 6, dtype=torch.float64)
        ms_deform_attn(tensors[0], SHAPES, *tensors[1:]).backward(grad)
        for index, tensor in enumerate(tensors):
            direction = torch.randn_like(tensor)
            sums = []
            for step in (-1e-6, 1e-6):
                moved = [x.detach() for x in tensors]
                moved[index] = moved[index] + step * direction
                sums.append((definition(moved[0], SHAPES, *moved[1:]) * grad).sum())
            slope = (sums[1] - sums[0]) / 2e-6
            torch.testing.assert_close((tensor.grad * direction).sum(), slope, rtol=1e-5, atol=1e-6)

    def test_the_number_of_threads_changes_no_bit(self, implementation):
        if implementation == "reference":
            pytest.skip("promised for the kernel")
        tensors = inputs(queries=300, dtype=torch.float32, channels=32)
        grad = torch.randn(2, 300, 96)
        threads, results = torch.get_num_threads(), []
        try:
            for number in (1, 2, 5):
                torch.set_num_threads(number)
                leaves = [tensor.clone().requires_grad_() for tensor in tensors]
                out = ms_deform_attn(leaves[0], SHAPES, *leaves[1:])
                out.backward(grad)
                results.append([out.detach(), *(leaf.grad for leaf in leaves)])
        finally:
            torch.set_num_threads(threads)
        for result in results[1:]:
            assert all(torch.equal(a, b) for a, b in zip(result, results[0]))

    def test_no_second_derivative_is_invented(self):
        value, locations, weights = inputs(batch=1, queries=1)
        value.requires_grad_()
        out = ms_deform_attn(value, SHAPES, locations, weights).square().sum()
        (first,) = torch.autograd.grad(out, value, create_graph=True)
        with pytest.raises(RuntimeError, match="differentiate twice"):
            first.sum().backward()

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

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_values_with_exact_locations(self, dtype):
        """As the layers call it under autocast."""
        value, locations, weights = inputs(dtype=torch.float32)
        tensors = [value.to(dtype), locations, weights]
        for tensor in tensors:
            tensor.requires_grad_()
        result = ms_deform_attn(tensors[0], SHAPES, *tensors[1:])
        assert result.dtype == dtype
        result.float().sum().backward()
        assert [tensor.grad.dtype for tensor in tensors] == [dtype, torch.float32, torch.float32]


class TestDispatcher:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    @pytest.mark.parametrize("queries", [0, 5])
    def test_opcheck(self, dtype, queries):
        tensors = inputs(queries=queries, dtype=dtype)
        for tensor in tensors:
            tensor.requires_grad_()
        value, locations, weights = tensors
        arguments = (value, FLAT, locations, weights)
        torch.library.opcheck(torch.ops.rsd2.ms_deform_attn.default, arguments)
        grad = torch.randn(2, queries, 12, dtype=dtype)
        arguments = (grad, *(x.detach() if isinstance(x, torch.Tensor) else x for x in arguments))
        torch.library.opcheck(torch.ops.rsd2.ms_deform_attn_backward.default, arguments)

    @pytest.mark.parametrize("dynamic", [False, True])
    def test_compiles_in_one_graph(self, dynamic):
        torch.manual_seed(0)
        layer = DeformableAttention(32, 4, len(SHAPES), 2)
        torch.nn.init.normal_(layer.sampling_offsets.weight, std=0.1)
        query, value = torch.randn(2, 5, 32), torch.randn(2, LENGTH, 32)
        points = torch.rand(2, 5, 2)
        compiled = torch.compile(layer, fullgraph=True, dynamic=dynamic, backend="aot_eager")
        gradients = []
        for module in (layer, compiled):
            layer.zero_grad()
            out = module(query, value, points, SHAPES)
            out.square().sum().backward()
            gradients.append([out.detach(), *(p.grad.clone() for p in layer.parameters())])
        torch.testing.assert_close(gradients[1], gradients[0])

    def test_the_rotated_layer_compiles_in_one_graph(self):
        torch.manual_seed(0)
        layer = RotatedDeformableAttention(32, 4, len(SHAPES), 2)
        query, value = torch.randn(2, 5, 32), torch.randn(2, LENGTH, 32)
        boxes, angles = torch.rand(2, 5, 4), 90 * torch.rand(2, 5)
        arguments = (query, value, boxes, angles, torch.ones(2, 2), SHAPES)
        compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(*arguments), layer(*arguments))


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
        with pytest.raises(ValueError, match="floating"):
            ms_deform_attn(value.long(), SHAPES, locations, weights)
        with pytest.raises(ValueError, match="on meta"):
            ms_deform_attn(value, SHAPES, locations.to("meta"), weights)


STRANGE = [math.nan, math.inf, -math.inf, 1e30, -1e30, 0.0, 1.0, -1e-7, 0.5, 2.0]


@st.composite
def strange_inputs(draw):
    """Shapes, dtypes and strides of all kinds; locations that no map holds."""
    shapes = draw(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)), min_size=1, max_size=3))
    batch, queries, heads, channels, points = (draw(st.integers(0, 3)) for _ in range(5))
    channels = draw(st.sampled_from([channels, 16, 33]))
    dtype = draw(st.sampled_from([torch.float64, torch.float32, torch.float16, torch.bfloat16]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 1000)))
    length = sum(h * w for h, w in shapes)
    cells = (batch, queries, heads, len(shapes), points)
    value = torch.randn(batch, length, heads, channels, generator=generator).to(dtype)
    locations = torch.rand(*cells, 2, generator=generator) * 2 - 0.5
    strange = torch.tensor(STRANGE)[
        torch.randint(len(STRANGE), locations.shape, generator=generator)
    ]
    locations = torch.where(
        torch.rand(locations.shape, generator=generator) < 0.3, strange, locations
    )
    weights = torch.rand(*cells, generator=generator)
    order = draw(st.permutations(range(4)))
    value = value.permute(order).contiguous().permute([order.index(i) for i in range(4)])
    return value, shapes, locations, weights


@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(strange_inputs())
def test_anything_gives_what_the_definition_gives(arguments):
    value, shapes, locations, weights = arguments
    value.requires_grad_(), locations.requires_grad_(), weights.requires_grad_()
    result = ms_deform_attn(value, shapes, locations, weights)
    batch, queries, heads = weights.shape[:3]
    assert result.shape == (batch, queries, heads * value.shape[3]) and result.dtype == value.dtype
    finite = torch.where(locations.isfinite(), locations.detach().clamp(-9, 9), -9.0)
    expected = definition(value, shapes, finite, weights)
    tolerance = {torch.float16: 1e-2, torch.bfloat16: 1e-1}.get(value.dtype, 1e-5)
    torch.testing.assert_close(result.double(), expected, rtol=tolerance, atol=tolerance)
    result.float().sum().backward()
    gone = ~(locations.detach().abs() < 9)
    assert locations.grad.isfinite().all() and value.grad.isfinite().all()
    assert (locations.grad[gone] == 0).all()
    assert (weights.grad[gone.any(-1)] == 0).all()
