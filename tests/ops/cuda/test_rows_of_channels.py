"""Deformable attention and rotated RoIAlign by the CUDA kernels against the references."""

import pytest
import torch

from rsd2.ops.ms_deform_attn import reference_ms_deform_attn, reference_ms_deform_attn_backward
from rsd2.ops.roi_align_rotated import (
    reference_roi_align_rotated,
    reference_roi_align_rotated_backward,
)

pytestmark = pytest.mark.slow
TYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
LEVELS = [9, 7, 5, 4, 1, 1]
LENGTH = 9 * 7 + 5 * 4 + 1


def attention_inputs(channels: int, dtype, positions, points: int = 3, queries: int = 4):
    """value, locations, weights, gradient; some locations far outside, at edges, or NaN."""
    generator = torch.Generator().manual_seed(channels)
    sizes = (2, queries, 3, 3, points)
    value = torch.randn(2, LENGTH, 3, channels, generator=generator).to(dtype)
    locations = torch.rand(*sizes, 2, generator=generator) * 1.4 - 0.2
    if locations.numel():
        locations[0, 0, 0, 0, 0, 0] = float("nan")
        locations[0, 0, 1, 0, 0] = 1e30
        locations[0, 1, 0, :, 0] = 0.5
        locations[0, 1, 1, :, 0] = 1.0
    weights = torch.rand(*sizes, generator=generator)
    grad = torch.randn(2, queries, 3 * channels, generator=generator).to(dtype)
    return value, locations.to(positions), weights.to(positions), grad


def off_by_one(tensor: torch.Tensor) -> torch.Tensor:
    """The same numbers, of which the first is the second of its memory."""
    room = tensor.new_zeros(tensor.numel() + 1)
    return room[1:].view(tensor.shape).copy_(tensor)


@pytest.mark.parametrize("channels", [32, 8, 3, 34])
@pytest.mark.parametrize("dtype", TYPES)
class TestAttention:
    def test_forward(self, kernels, dtype, channels):
        for positions in {dtype, torch.float32}:
            value, locations, weights, _ = attention_inputs(channels, dtype, positions)
            result = kernels("ms_deform_attn", value, LEVELS, locations, weights)
            expected = reference_ms_deform_attn(value, LEVELS, locations, weights)
            kernels.assert_near(result, expected)

    def test_backward(self, kernels, dtype, channels):
        for positions in {dtype, torch.float32}:
            self.check_backward(kernels, *attention_inputs(channels, dtype, positions))

    def test_deterministic_backward(self, kernels, dtype, channels, deterministic):
        inputs = attention_inputs(channels, dtype, dtype)
        first = self.check_backward(kernels, *inputs)
        again = self.check_backward(kernels, *inputs)
        assert all(torch.equal(one, two) for one, two in zip(first, again))

    @staticmethod
    def check_backward(kernels, value, locations, weights, grad):
        arguments = (grad, value, LEVELS, locations, weights)
        results = kernels("ms_deform_attn_backward", *arguments)
        expected = reference_ms_deform_attn_backward(*arguments)
        # Where a sample lies on a pixel's centre the gradient in its location has two values.
        sides = torch.tensor(LEVELS).view(1, 1, 1, 3, 1, 2).flip(-1)
        x = locations.double() * sides - 0.5
        smooth = ((x - x.round()).abs() > 1e-3).all(-1, keepdim=True)
        assert smooth.double().mean() > 0.5
        masks = torch.ones(()), smooth, torch.ones(())
        for result, right, mask in zip(results, expected, masks):
            kernels.assert_near(torch.where(mask != 0, result, 0), torch.where(mask != 0, right, 0))
        return results


class TestAttentionInput:
    def test_more_channels_than_a_warp_takes_at_a_time(self, kernels):
        inputs = attention_inputs(136, torch.float32, torch.float32, points=2, queries=2)
        TestAttention.check_backward(kernels, *inputs)
        value, locations, weights, _ = inputs
        result = kernels("ms_deform_attn", value, LEVELS, locations, weights)
        kernels.assert_near(result, reference_ms_deform_attn(value, LEVELS, locations, weights))

    def test_strided_values(self, kernels):
        value, locations, weights, _ = attention_inputs(16, torch.float32, torch.float32)
        expected = reference_ms_deform_attn(value, LEVELS, locations, weights)
        apart = torch.stack([value, value + 9], dim=-1)[..., 0]  # channels two apart
        head_first = value.transpose(1, 2).contiguous().transpose(1, 2)
        rows = torch.nn.functional.pad(value, (0, 1))[..., :16]  # rows do not begin at 16 bytes
        for strided in (apart, head_first, rows, off_by_one(value)):
            result = kernels("ms_deform_attn", strided, LEVELS, locations, weights)
            kernels.assert_near(result, expected)

    def test_numbers_that_do_not_begin_at_16_bytes(self, kernels):
        value, locations, weights, grad = attention_inputs(16, torch.float32, torch.float32)
        for arguments in ((off_by_one(grad), value), (grad, off_by_one(value))):
            TestAttention.check_backward(kernels, arguments[1], locations, weights, arguments[0])

    @pytest.mark.parametrize(("channels", "points", "queries"), [(0, 3, 4), (8, 0, 4), (8, 3, 0)])
    def test_nothing_to_do(self, kernels, channels, points, queries):
        inputs = attention_inputs(channels, torch.float32, torch.float32, points, queries)
        value, locations, weights, grad = inputs
        result = kernels("ms_deform_attn", value, LEVELS, locations, weights)
        assert result.shape == (2, queries, 3 * channels) and (result == 0).all()
        results = kernels("ms_deform_attn_backward", grad, value, LEVELS, locations, weights)
        for gradient, tensor in zip(results, (value, locations, weights)):
            assert gradient.shape == tensor.shape and (gradient == 0).all()

    def test_what_does_not_fit_is_refused(self, kernels):
        value, locations, weights, _ = attention_inputs(8, torch.float32, torch.float32)
        bad = [
            (value, LEVELS[:4], locations, weights),
            (value, LEVELS, locations[:, :2], weights),
            (value, LEVELS, locations, weights[..., :2]),
            (value[:1], LEVELS, locations, weights),
            (value, [84, 1] * 33, locations, weights),
            (value, [0, 1, *LEVELS], locations, weights),
        ]
        for arguments in bad:
            with pytest.raises(ValueError):
                kernels("ms_deform_attn", *arguments)

    def test_an_infinite_value_reaches_only_those_that_sample_it(self, kernels):
        value, locations, weights, _ = attention_inputs(8, torch.float32, torch.float32)
        value[:, 0] = float("inf")
        locations = torch.full_like(locations, 0.99)
        locations[:, 0] = 2.0  # outside: nothing is read, not even with weight 0
        result = kernels("ms_deform_attn", value, LEVELS, locations, weights)
        assert torch.isfinite(result).all() and (result[:, 0] == 0).all()


def region_inputs(channels: int, dtype):
    """features, regions (some empty, huge or outside), gradient of 3 x 2 bins."""
    generator = torch.Generator().manual_seed(channels)
    features = torch.randn(2, channels, 13, 17, generator=generator).to(dtype)
    rois = torch.rand(12, 6, generator=generator) * torch.tensor([0, 70, 60, 60, 60, 360.0])
    rois[:, 0] = torch.arange(12) % 2
    rois[:, 5] -= 180
    rois[0, 3] = 0
    rois[1, 3:5] = torch.tensor([400.0, 300])
    rois[2, 1:3] = 1e6
    rois[3, 1:] = torch.tensor([32.0, 24, 32, 16, 90])
    grad = torch.randn(12, channels, 3, 2, generator=generator).to(dtype)
    return features, rois, grad


@pytest.mark.parametrize("ratio", [0, 2])
@pytest.mark.parametrize("channels", [16, 5, 300])
@pytest.mark.parametrize("dtype", TYPES)
class TestRoiAlign:
    def test_forward(self, kernels, dtype, channels, ratio):
        features, rois, _ = region_inputs(channels, dtype)
        for regions in (rois, rois.double()):
            arguments = (features, regions, [3, 2], 0.25, ratio)
            result = kernels("roi_align_rotated", *arguments)
            kernels.assert_near(result, reference_roi_align_rotated(*arguments))

    def test_backward(self, kernels, dtype, channels, ratio):
        self.check_backward(kernels, dtype, channels, ratio)

    def test_deterministic_backward(self, kernels, dtype, channels, ratio, deterministic):
        first = self.check_backward(kernels, dtype, channels, ratio)
        assert torch.equal(first, self.check_backward(kernels, dtype, channels, ratio))

    @staticmethod
    def check_backward(kernels, dtype, channels, ratio):
        features, rois, grad = region_inputs(channels, dtype)
        arguments = (grad, rois, list(features.shape), 0.25, ratio)
        result = kernels("roi_align_rotated_backward", *arguments)
        kernels.assert_near(result, reference_roi_align_rotated_backward(*arguments))
        return result


class TestRoiAlignInput:
    def test_regions_that_cannot_be_pooled_give_nan_and_no_gradient(self, kernels):
        features, rois, grad = region_inputs(16, torch.float32)
        good = kernels("roi_align_rotated", features, rois, [3, 2], 0.25, 2)
        bad = rois.clone()
        bad[4, 1] = float("nan")
        bad[5, 3] = -1
        bad[6, 0] = 2
        result = kernels("roi_align_rotated", features, bad, [3, 2], 0.25, 2)
        assert result[4:7].isnan().all()
        others = [i for i in range(12) if not 4 <= i < 7]
        assert torch.equal(result[others], good[others])
        shape = list(features.shape)
        gradient = kernels("roi_align_rotated_backward", grad, bad, shape, 0.25, 2)
        arguments = (grad[others], rois[others], shape, 0.25, 2)
        kernels.assert_near(gradient, reference_roi_align_rotated_backward(*arguments))

    def test_regions_of_no_image_are_not_pooled_either(self, kernels):
        features, rois, grad = region_inputs(16, torch.float32)
        bad = rois.clone()
        bad[4, 1] = float("nan")
        for maps, number in ((features[:0], len(rois)), (features[:, :, :0], 1)):
            result = kernels("roi_align_rotated", maps, bad, [3, 2], 0.25, 2)
            assert result.flatten(1).isnan().all(1).sum() == number
            gradient = kernels("roi_align_rotated_backward", grad, bad, list(maps.shape), 0.25, 2)
            assert gradient.shape == maps.shape and gradient.numel() == 0

    def test_channels_last_and_strided_input(self, kernels):
        features, rois, grad = region_inputs(16, torch.float32)
        expected = reference_roi_align_rotated(features, rois, [3, 2], 0.25, 0)
        strided = rois.t().contiguous().t()
        last = features.to(memory_format=torch.channels_last)
        off = off_by_one(last.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        for maps in (last, off, features.flip(3).flip(3)):
            result = kernels("roi_align_rotated", maps, strided, [3, 2], 0.25, 0)
            assert result.is_contiguous()
            kernels.assert_near(result, expected)

    def test_nothing_to_do(self, kernels):
        features, rois, grad = region_inputs(16, torch.float32)
        no_pixels = features[:, :, :, :0]
        for maps, regions in ((features, rois[:0]), (features[:, :0], rois), (no_pixels, rois)):
            result = kernels("roi_align_rotated", maps, regions, [3, 2], 0.25, 0)
            assert result.shape == (len(regions), maps.shape[1], 3, 2) and (result == 0).all()
            shape = list(maps.shape)
            gradient = kernels(
                "roi_align_rotated_backward",
                torch.ones_like(result),
                regions,
                shape,
                1.0,
                0,
            )
            assert gradient.shape == maps.shape and (gradient == 0).all()

    def test_what_does_not_fit_is_refused(self, kernels):
        features, rois, _ = region_inputs(16, torch.float32)
        for arguments in (
            (features[0], rois, [3, 2], 0.25, 0),
            (features, rois[:, :5], [3, 2], 0.25, 0),
            (features, rois, [3, 0], 0.25, 0),
        ):
            with pytest.raises(ValueError):
                kernels("roi_align_rotated", *arguments)
