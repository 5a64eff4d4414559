import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rsd2.ops.trigonometry import (
    angle_between_rests,
    rotate_quarter_turns,
    sincos_degrees,
    small_sincos,
    split_quarter_turns,
)

angles = st.floats(-1e5, 1e5)


def between(a: float, b: float) -> tuple[float, bool]:
    """Angle b minus angle a modulo quarter turns, and whether one was taken off."""
    rests = [split_quarter_turns(torch.tensor(x, dtype=torch.float64))[1] for x in (a, b)]
    angle, is_turned = angle_between_rests(*rests)
    return angle.item(), is_turned.item()


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
    assert between(angle, angle) == (0, False)
    other = angle + 90.0 * turns
    if other - 90.0 * turns == angle and other - angle == 90.0 * turns:
        assert abs(between(angle, other)[0]) < 1e-10


@given(angles, angles)
def test_difference_agrees_with_math(a, b):
    angle, _ = between(a, b)
    assert abs(angle) <= 45
    # The same modulo quarter turns: the sine of four times the difference.
    assert math.sin(math.radians(4 * angle)) == pytest.approx(
        math.sin(math.radians(4 * (b - a))), abs=1e-9
    )


def test_a_quarter_turn_is_told():
    assert between(0.0, 90.0) == (0, False)  # the rests are equal
    assert between(40.0, -40.0) == (10, True)
    assert between(-40.0, 40.0) == (-10, True)
    assert between(20.0, -20.0) == (-40, False)


@pytest.mark.parametrize("start", [0.0, 44.99, 45.0, -45.0, 89.0, 135.0, 179.9])
def test_last_digits_survive(start):
    nearby = math.nextafter(start, 1000)
    angle, _ = between(start, nearby)
    assert angle == pytest.approx(nearby - start, rel=1e-12)


@given(st.floats(-math.pi / 4, math.pi / 4))
def test_small_sincos_is_good_to_the_last_place(radians):
    sin, cos = small_sincos(torch.tensor(radians, dtype=torch.float64))
    assert abs(sin.item() - math.sin(radians)) <= 2 * math.ulp(math.sin(radians))
    assert abs(cos.item() - math.cos(radians)) <= 2 * math.ulp(math.cos(radians))


def test_small_sincos_has_its_derivatives():
    radians = torch.linspace(-0.78, 0.78, 9, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(small_sincos, radians)


@given(st.integers(-8, 8))
def test_rotation_by_quarter_turns(turns):
    cos, sin = rotate_quarter_turns(torch.tensor(0.8), torch.tensor(0.6), torch.tensor(turns))
    expected = [(0.8, 0.6), (-0.6, 0.8), (-0.8, -0.6), (0.6, -0.8)][turns % 4]
    assert (cos.item(), sin.item()) == pytest.approx(expected)
