"""Sine encodings: by-hand values, and positions that ignore padding."""

from __future__ import annotations

import math

import pytest
import torch

from rsd2.layers import SinePositionEncoding, sine_embedding


def test_by_hand():
    encoded = sine_embedding(torch.tensor([[0.5, 2.0]]), 4, temperature=100.0)
    expected = []
    for x in (0.5, 2.0):
        for frequency in (1.0, 10.0):
            expected += [math.sin(x / frequency), math.cos(x / frequency)]
    assert encoded.shape == (1, 8)
    assert torch.allclose(encoded[0], torch.tensor(expected))


def test_double_stays_double():
    assert sine_embedding(torch.rand(3, 4, dtype=torch.float64), 8).dtype == torch.float64


def test_first_half_depends_on_y_and_second_on_x():
    encoded = SinePositionEncoding(16)(torch.zeros(1, 3, 5, dtype=torch.bool))[0]
    assert encoded.shape == (3, 5, 16)
    assert torch.equal(encoded[:, :1, :8].expand(-1, 5, -1), encoded[..., :8])
    assert torch.equal(encoded[:1, :, 8:].expand(3, -1, -1), encoded[..., 8:])


def test_token_centres_are_spread_over_the_valid_extent():
    encoded = SinePositionEncoding(4, temperature=1.0)(torch.zeros(1, 1, 4, dtype=torch.bool))
    phases = torch.atan2(encoded[0, 0, :, 2], encoded[0, 0, :, 3]) % (2 * math.pi)
    centres = (torch.arange(4) + 0.5) / 4 * 2 * math.pi
    assert torch.allclose(phases, centres, atol=1e-5)


def test_padding_does_not_move_the_valid_tokens():
    alone = torch.zeros(1, 3, 4, dtype=torch.bool)
    padded = torch.ones(1, 6, 9, dtype=torch.bool)
    padded[:, :3, :4] = False
    encoding = SinePositionEncoding(8)
    assert torch.allclose(encoding(alone), encoding(padded)[:, :3, :4], atol=1e-6)
    assert torch.isfinite(encoding(padded)).all()


def test_width_that_is_not_divisible_by_4_is_refused():
    with pytest.raises(ValueError, match="4.*6"):
        SinePositionEncoding(6)
