import importlib
import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torchvision.ops import roi_align

from rsd2.ops import roi_align_rotated, roi_align_rotated_backward
from rsd2.ops.roi_align_rotated import (
    reference_roi_align_rotated,
    reference_roi_align_rotated_backward,
)

REFERENCES = {
    "roi_align_rotated": reference_roi_align_rotated,
    "roi_align_rotated_backward": reference_roi_align_rotated_backward,
}
pytestmark = pytest.mark.usefixtures("implementation")


def definition(features, rois, size, scale, ratio):
    """One sample at a time: means of bilinear samples on a grid in the box's own frame."""
    _, channels, height, width = features.shape
    result = torch.zeros(len(rois), channels, *size, dtype=torch.float64)
    for k, (image, cx, cy, w, h, angle) in enumerate(rois.tolist()):
        cx, cy, w, h = cx * scale - 0.5, cy * scale - 0.5, w * scale, h * scale
        cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        grid_h = ratio if ratio > 0 else math.ceil(h / size[0])
        grid_w = ratio if ratio > 0 else math.ceil(w / size[1])
        for row in range(size[0]):
            for column in range(size[1]):
                for i in range(grid_h):
                    for j in range(grid_w):
                        down = h * ((row + (i + 0.5) / grid_h) / size[0] - 0.5)
                        along = w * ((column + (j + 0.5) / grid_w) / size[1] - 0.5)
                        x, y = cx + cos * along + sin * down, cy - sin * along + cos * down
                        if not (-1 <= x <= width and -1 <= y <= height):
                            continue
                        x, y = min(max(x, 0), width - 1), min(max(y, 0), height - 1)
                        left, top = int(x), int(y)
                        for r in {top, min(top + 1, height - 1)}:
                            for c in {left, min(left + 1, width - 1)}:
                                share = max(0, 1 - abs(x - c)) * max(0, 1 - abs(y - r))
                                pixel = features[int(image), :, r, c].double()
                                result[k, :, row, column] += share * pixel / (grid_h * grid_w)
    return result


@pytest.fixture
def features():
    return torch.randn(2, 3, 12, 16, generator=torch.Generator().manual_seed(0)).double()


@pytest.fixture
def rois():
    return torch.tensor(
        [
            [0, 16, 12, 20, 8, 0],
            [1, 16, 12, 20, 8, 33],
            [0, 10, 10, 5, 18, -120],
            [1, 0, 0, 30, 30, 45],  # partly outside
            [0, 200, 200, 4, 4, 10],  # far outside
            [1, 16, 12, 0.5, 0.25, 77],
            [0, 16, 12, 0, 4, 5],  # no width
        ],
        dtype=torch.float64,
    )


@pytest.mark.parametrize("ratio", [0, 1, 2])
@pytest.mark.parametrize("size", [(3, 3), (2, 5), (1, 1)])
def test_equals_the_definition(features, rois, ratio, size):
    result = roi_align_rotated(features, rois, size, 0.5, ratio)
    expected = definition(features, rois, size, 0.5, ratio)
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-10)
    low = roi_align_rotated(features.float(), rois.float(), size, 0.5, ratio)
    torch.testing.assert_close(low, expected.float(), rtol=0, atol=1e-4)


def test_unturned_regions_are_torchvisions(features):
    xyxy = torch.tensor([[0, 4.0, 3, 20, 17], [1, 1, 1, 30, 22]], dtype=torch.float64)
    low, high = xyxy[:, 1:3], xyxy[:, 3:]
    centers, sides = (low + high) / 2, high - low
    rois = torch.cat([xyxy[:, :1], centers, sides, torch.zeros(2, 1)], dim=1)
    for ratio in (0, 2):
        expected = roi_align(features, xyxy, (4, 4), 0.5, ratio, aligned=True)
        result = roi_align_rotated(features, rois, 4, 0.5, ratio)
        torch.testing.assert_close(result, expected)


def test_a_quarter_turn_turns_the_grid(features):
    square = torch.tensor([[0, 8.0, 6, 6, 6, 0]], dtype=torch.float64)
    turned = square.clone()
    turned[:, 5] = 90
    flat = roi_align_rotated(features, square, 3, 1.0, 2)
    # The region's own left is the image's bottom: its columns read the image from below.
    expected = torch.rot90(flat, -1, dims=(2, 3))
    torch.testing.assert_close(roi_align_rotated(features, turned, 3, 1.0, 2), expected)


def test_gradcheck_and_registered_backward(features, rois):
    features, rois = features[:, :1, :4, :6].clone().requires_grad_(), rois[:4]
    for ratio in (0, 2):
        assert torch.autograd.gradcheck(
            lambda x, ratio=ratio: roi_align_rotated(x, rois, (2, 3), 0.25, ratio), features
        )
        pooled = roi_align_rotated(features, rois, (2, 3), 0.25, ratio)
        grad = torch.randn_like(pooled)
        (expected,) = torch.autograd.grad(pooled, features, grad)
        explicit = roi_align_rotated_backward(grad, rois, tuple(features.shape), 0.25, ratio)
        torch.testing.assert_close(explicit, expected)


def test_portions_do_not_change_the_result(features, rois, monkeypatch):
    expected = reference_roi_align_rotated(features, rois, (3, 3), 0.5, 0)
    module = importlib.import_module("rsd2.ops.roi_align_rotated")
    monkeypatch.setattr(module, "VALUE_BUDGET", 1)
    result = reference_roi_align_rotated(features, rois, (3, 3), 0.5, 0)
    torch.testing.assert_close(result, expected)


def test_strided_input(features, rois):
    expected = roi_align_rotated(features, rois, 3, 0.5, 0)
    channels_last = features.contiguous(memory_format=torch.channels_last)
    mirrored = features.transpose(2, 3).contiguous().transpose(2, 3)
    rois_apart = torch.stack([rois, rois], dim=2)[:, :, 1]
    for strided in (channels_last, mirrored):
        torch.testing.assert_close(roi_align_rotated(strided, rois_apart, 3, 0.5, 0), expected)
    grad = torch.randn_like(expected)
    plain = roi_align_rotated_backward(grad, rois, tuple(features.shape), 0.5, 0)
    strided = grad.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0)
    result = roi_align_rotated_backward(strided, rois_apart, tuple(features.shape), 0.5, 0)
    torch.testing.assert_close(result, plain)


@pytest.mark.parametrize("channels", [1, 5, 16, 33, 70])
def test_every_number_of_channels(rois, channels, dtype):
    features = torch.randn(2, channels, 12, 16, dtype=dtype)
    pooled = roi_align_rotated(features, rois.to(dtype), 3, 0.5, 0)
    grad = torch.randn_like(pooled)
    shape = tuple(features.shape)
    spread = roi_align_rotated_backward(grad, rois.to(dtype), shape, 0.5, 0)
    for c in range(channels):
        one = slice(c, c + 1)
        alone = roi_align_rotated(features[:, one], rois.to(dtype), 3, 0.5, 0)
        torch.testing.assert_close(alone, pooled[:, one])
        back = roi_align_rotated_backward(grad[:, one], rois.to(dtype), (2, 1, 12, 16), 0.5, 0)
        torch.testing.assert_close(back, spread[:, one])


def test_a_bin_of_very_many_samples(features):
    """More of them than the kernel lists at a time, nearly all outside of the map."""
    rois = torch.tensor([[0, 8.0, 6, 900, 700, 20], [1, 8, 6, 60, 40, 70]], dtype=torch.float64)
    expected = definition(features[:, :1], rois, (2, 2), 0.25, 0)
    result = roi_align_rotated(features[:, :1], rois, 2, 0.25, 0)
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-10)


def test_the_number_of_threads_changes_no_bit(rois, implementation):
    if implementation == "reference":
        pytest.skip("promised for the kernel")
    features = torch.randn(2, 100, 12, 16)
    rois = rois.float().repeat(20, 1)
    threads, results = torch.get_num_threads(), []
    try:
        for number in (1, 2, 5):
            torch.set_num_threads(number)
            pooled = roi_align_rotated(features, rois, 3, 0.5, 0)
            spread = roi_align_rotated_backward(pooled, rois, (2, 100, 12, 16), 0.5, 0)
            results.append((pooled, spread))
    finally:
        torch.set_num_threads(threads)
    for pooled, spread in results[1:]:
        assert torch.equal(pooled, results[0][0]) and torch.equal(spread, results[0][1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("count", [0, 7])
def test_opcheck(features, rois, dtype, count):
    arguments = (features.to(dtype).requires_grad_(), rois[:count].float(), [3, 2], 0.5, 0)
    torch.library.opcheck(torch.ops.rsd2.roi_align_rotated.default, arguments)
    grad = torch.randn(count, 3, 3, 2, dtype=dtype)
    arguments = (grad, rois[:count].float(), [2, 3, 12, 16], 0.5, 0)
    torch.library.opcheck(torch.ops.rsd2.roi_align_rotated_backward.default, arguments)


@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_in_one_graph(features, rois, dynamic):
    def pooled_sum(features, rois):
        return roi_align_rotated(features * 2, rois, (3, 2), 0.5, 0).square().sum()

    compiled = torch.compile(pooled_sum, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    leaves = [features.clone().requires_grad_() for _ in range(2)]
    results = [function(leaf, rois) for function, leaf in zip((pooled_sum, compiled), leaves)]
    for result in results:
        result.backward()
    torch.testing.assert_close(results[1], results[0])
    torch.testing.assert_close(leaves[1].grad, leaves[0].grad)


def test_autocast_lowers_nothing(features, rois):
    expected = roi_align_rotated(features.float(), rois, 3, 0.5, 0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = roi_align_rotated(features.float(), rois, 3, 0.5, 0)
    assert torch.equal(result, expected)


def test_constant_features_stay_constant():
    rois = torch.tensor([[0, 16.0, 12, 9, 4, 25]])
    pooled = roi_align_rotated(torch.ones(1, 2, 24, 32), rois, 7, 1.0, 0)
    torch.testing.assert_close(pooled, torch.ones(1, 2, 7, 7))


def test_half_and_empty(features, rois):
    low = features.bfloat16().requires_grad_()
    pooled = roi_align_rotated(low, rois.float(), 3, 0.5, 2)
    assert pooled.dtype == torch.bfloat16
    pooled.float().sum().backward()
    assert low.grad.dtype == torch.bfloat16 and low.grad.isfinite().all()
    none = roi_align_rotated(features.requires_grad_(), rois[:0], (2, 3), 0.5, 0)
    assert none.shape == (0, 3, 2, 3)
    none.sum().backward()
    assert (features.grad == 0).all()


def test_bad_input_is_named(features, rois):
    for change, message in [
        ((0, 0, 5.0), "image indices"),
        ((0, 3, -1.0), "sides"),
        ((0, 0, -1.0), "image indices"),
        ((0, 1, math.nan), "non-finite"),
        ((0, 5, math.inf), "non-finite"),
        ((0, 4, 1e9), "2.28 samples"),
    ]:
        bad = rois.clone()
        bad[change[0], change[1]] = change[2]
        with pytest.raises(ValueError, match=message):
            roi_align_rotated(features, bad, 3)
        with pytest.raises(ValueError, match=message):
            roi_align_rotated_backward(torch.ones(len(rois), 3, 3, 3), bad, (2, 3, 12, 16))
    with pytest.raises(ValueError, match="rois"):
        roi_align_rotated(features, rois[:, :5], 3)
    with pytest.raises(ValueError, match="features"):
        roi_align_rotated(features[0], rois, 3)
    with pytest.raises(ValueError, match="output_size"):
        roi_align_rotated(features, rois, (0, 3))
    with pytest.raises(ValueError, match="spatial_scale"):
        roi_align_rotated(features, rois, 3, 0.0)
    with pytest.raises(ValueError, match="floating"):
        roi_align_rotated(features.long(), rois, 3)
    with pytest.raises(ValueError, match="on meta"):
        roi_align_rotated(features, rois.to("meta"), 3)
    with pytest.raises(ValueError, match="does not fit"):
        roi_align_rotated_backward(torch.ones(3, 3, 3, 3), rois, (2, 3, 12, 16))


@st.composite
def strange_regions(draw):
    """Maps of one pixel, regions without a side, far away, huge or tiny; all strides and dtypes."""
    images, channels = draw(st.integers(1, 2)), draw(st.sampled_from([0, 1, 3, 17]))
    height, width = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    dtype = draw(st.sampled_from([torch.float64, torch.float32, torch.float16, torch.bfloat16]))
    side = st.sampled_from([0.0, 1e-30, 0.5, 3.0, 40.0])
    center = st.sampled_from([0.0, -0.5, 1.5, 4.0, 1e6, -1e30, 1e38])
    angle = st.sampled_from([0.0, 90.0, -180.0, 33.0, 1e7])
    rows = st.tuples(st.integers(0, images - 1), center, center, side, side, angle)
    rois = draw(st.lists(rows, max_size=4))
    seed = draw(st.integers(0, 1000))
    features = torch.randn(
        images, channels, height, width, generator=torch.Generator().manual_seed(seed)
    )
    order = draw(st.permutations(range(4)))
    features = features.to(dtype).permute(order).contiguous()
    features = features.permute([order.index(i) for i in range(4)])
    size = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    return features, torch.tensor(rois).view(-1, 6), size, draw(st.sampled_from([0, 1, 3]))


@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(strange_regions())
def test_anything_gives_what_the_definition_gives(arguments):
    features, rois, size, ratio = arguments
    features.requires_grad_()
    result = roi_align_rotated(features, rois, size, 0.5, ratio)
    assert result.dtype == features.dtype
    expected = definition(features.detach(), rois, size, 0.5, ratio)
    tolerance = {torch.float16: 1e-2, torch.bfloat16: 1e-1}.get(features.dtype, 1e-5)
    torch.testing.assert_close(result.double(), expected, rtol=tolerance, atol=tolerance)
    result.float().sum().backward()
    assert features.grad.isfinite().all()
