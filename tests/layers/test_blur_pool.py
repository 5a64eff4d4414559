"""The low-pass filter before subsampling."""

import pytest
import torch

from rsd2.layers import BlurPool


def test_an_impulse_spreads_by_the_binomial_kernel():
    x = torch.zeros(1, 1, 8, 8)
    x[0, 0, 3, 4] = 64.0
    y = BlurPool(1)(x)[0, 0]
    # Output i sees inputs 2 i - 1 ... 2 i + 2 with 1, 3, 3, 1.
    expected = torch.zeros(4, 4)
    expected[1:3, 1:3] = torch.tensor([[3.0 * 1, 3 * 3], [1.0 * 1, 1 * 3]])
    assert torch.equal(y, expected)


def test_equals_the_low_low_band_of_a_biorthogonal_wavelet():
    # bior3.3's low-pass analysis filter: the binomial [1, 3, 3, 1] times sqrt(2) / 8 on each axis.
    row = torch.tensor([1.0, 3.0, 3.0, 1.0]) * 2**0.5 / 8
    x = torch.randn(2, 3, 6, 10)
    padded = torch.nn.functional.pad(x, (1, 1, 1, 1))
    windows = padded.unfold(2, 4, 2).unfold(3, 4, 2)
    expected = torch.einsum("bchwij,i,j->bchw", windows, row, row)
    assert torch.allclose(BlurPool(3, gain=2.0)(x), expected, atol=1e-5)


@pytest.mark.parametrize("gain", [1.0, 2.0])
def test_keeps_the_mean_times_the_gain_inside(gain):
    y = BlurPool(2, gain)(torch.full((1, 2, 10, 10), 5.0))
    assert torch.allclose(y[:, :, 1:-1, 1:-1], torch.tensor(5.0 * gain))


@pytest.mark.parametrize("size", [(1, 1), (5, 8), (7, 9)])
def test_odd_sizes_shrink_like_a_strided_convolution(size):
    x = torch.randn(1, 2, *size)
    strided = torch.nn.Conv2d(2, 2, 3, stride=2, padding=1)(x)
    assert BlurPool(2)(x).shape == strided.shape


def test_a_non_positive_gain_is_refused():
    with pytest.raises(ValueError, match="gain must be positive, got 0"):
        BlurPool(1, 0)
