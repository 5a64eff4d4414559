import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rsd2.ops.trigonometry import (
    sincos_between_rests,
    sincos_degrees,
    split_quarter_turns,
)

angles = st.floats(-1e5, 1e5)


def between(a: float, b: float) -> tuple[torch.Tensor, torch.Tensor]:
    parts = [split_quarter_turns(torch.tensor(x, dtype=torch.float64)) for x in (a, b)]
    return sincos_between_rests(*parts[0], *parts[1])


@given(angles)
def test_split_is_exact(angle):
    turns, rest = split_quarter_turns(torch.tensor(angle, dtype=torch.float64))
    assert abs(rest.item()) <= 45
    assert math.fmod(angle, 360.0) == 90 * turns.item() + rest.item()


@given(angles)
def test_sincos_agrees_with_math(angle):
    sin, cos = sincos_degrees(torch.tensor(angle, dtype=torch.float64))
    assert sin.item() == pytest.approx(math.sin(math.radians(angle)), abs=1e-11)
    assert cos.item() == pytest.approx(math.cos(math.radians(angle)), abs=1e-11)


def test_quarter_turns_are_exact():
    for dtype in (torch.float32, torch.float64):
        angle = torch.tensor([-270.0, -180, -90, 0, 90, 180, 270, 360, 36000 + 90], dtype=dtype)
        sin, cos = sincos_degrees(angle)
        assert sin.tolist() == [1, 0, -1, 0, 1, 0, -1, 0, 1]
        assert cos.tolist() == [0, -1, 0, 1, 0, -1, 0, 1, 0]


@given(angles, st.integers(-4, 4))
def test_equal_directions_differ_by_exactly_zero(angle, turns):
    sin, cos = between(angle, angle)
    assert sin == 0 and cos == 1
    other = angle + 90.0 * turns
    if other - 90.0 * turns == angle and other - angle == 90.0 * turns:
        sin, cos = between(angle, other)
        assert min(abs(sin.item()), abs(cos.item())) < 1e-15


@given(angles, angles)
def test_difference_agrees_with_math(a, b):
    sin, cos = between(a, b)
    assert sin.item() == pytest.approx(math.sin(math.radians(b - a)), abs=1e-10)
    assert cos.item() == pytest.approx(math.cos(math.radians(b - a)), abs=1e-10)


@pytest.mark.parametrize("start", [0.0, 44.99, 45.0, -45.0, 89.0, 135.0, 179.9])
def test_last_digits_survive(start):
    nearby = math.nextafter(start, 1000)
    sin, _ = between(start, nearby)
    assert sin.item() == pytest.approx(math.radians(nearby - start), rel=1e-12)
    sin, _ = between(45.0 - 1e-13, -45.0)
    assert sin.item() == pytest.approx(-1.0)
