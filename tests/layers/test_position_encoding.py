"""Sine encodings: by-hand values, and positions that ignore padding."""

from __future__ import annotations

import math

import pytest
import torch

from rsd2.layers import (
    SinePositionEncoding,
    cached_sincos_positions_2d,
    sincos_positions_2d,
    sine_embedding,
)


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


def test_table_of_a_grid_by_hand():
    table = sincos_positions_2d((2, 3), 8).view(2, 3, 8)
    for row in range(2):
        for column in range(3):
            expected = []
            for position in (column, row):  # x comes first
                phases = [position / 10000**k for k in (0.0, 0.5)]
                expected += [math.sin(p) for p in phases] + [math.cos(p) for p in phases]
            assert torch.allclose(table[row, column], torch.tensor(expected))


def test_a_larger_grid_goes_on_where_a_smaller_one_ends():
    small, large = sincos_positions_2d((3, 4), 16), sincos_positions_2d((5, 7), 16)
    assert torch.equal(large.view(5, 7, 16)[:3, :4], small.view(3, 4, 16))


def test_scaled_grid_covers_the_same_area():
    # twice as many tokens: their centres lie a quarter token beside those of the coarse grid
    table = sincos_positions_2d((2, 4), 4, (1.0, 0.5)).view(2, 4, 4)
    x, y = torch.atan2(table[..., 0], table[..., 1]), torch.atan2(table[..., 2], table[..., 3])
    assert torch.allclose(x, torch.tensor([-0.25, 0.25, 0.75, 1.25]).expand(2, -1), atol=1e-6)
    assert torch.allclose(y, torch.tensor([[0.0], [1.0]]).expand(-1, 4), atol=1e-6)
    assert torch.equal(sincos_positions_2d((3, 3), 8, (1.0, 1.0)), sincos_positions_2d((3, 3), 8))


def test_table_of_a_width_that_is_not_divisible_by_4_is_refused():
    with pytest.raises(ValueError, match="4.*10"):
        sincos_positions_2d((2, 2), 10)


def test_a_trace_leaves_no_table_without_values_behind() -> None:
    class Table(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + cached_sincos_positions_2d((3, 5), 8, (1.25, 1.0), x.device, x.dtype)

    zeros = torch.zeros(15, 8)
    program = torch.export.export(Table(), (zeros,))
    expected = sincos_positions_2d((3, 5), 8, (1.25, 1.0))
    assert torch.equal(Table()(zeros), expected)
    torch.testing.assert_close(program.module()(zeros), expected)
