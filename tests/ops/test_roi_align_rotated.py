import importlib
import math

import pytest
import torch
from torchvision.ops import roi_align

from rsd2.ops import roi_align_rotated, roi_align_rotated_backward


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
    expected = roi_align_rotated(features, rois, 3, 0.5, 0)
    module = importlib.import_module("rsd2.ops.roi_align_rotated")
    monkeypatch.setattr(module, "VALUE_BUDGET", 1)
    torch.testing.assert_close(roi_align_rotated(features, rois, 3, 0.5, 0), expected)


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
        ((0, 1, math.nan), "non-finite"),
    ]:
        bad = rois.clone()
        bad[change[0], change[1]] = change[2]
        with pytest.raises(ValueError, match=message):
            roi_align_rotated(features, bad, 3)
    with pytest.raises(ValueError, match="rois"):
        roi_align_rotated(features, rois[:, :5], 3)
    with pytest.raises(ValueError, match="features"):
        roi_align_rotated(features[0], rois, 3)
    with pytest.raises(ValueError, match="output_size"):
        roi_align_rotated(features, rois, (0, 3))
    with pytest.raises(ValueError, match="spatial_scale"):
        roi_align_rotated(features, rois, 3, 0.0)
