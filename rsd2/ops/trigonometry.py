"""Sine and cosine of angles in degrees, exact at the quarter turns, for the rotated operators.

Detectron2 keeps angles in degrees, where a quarter turn is an exact number; in radians it is not.
Taking whole quarter turns off first (an exact operation on floats) makes ``cos(90)`` exactly 0 and
lets two angles be compared without losing the digits in which they differ.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

RADIANS = math.pi / 180.0
# Coefficients of sin(x) from x^15 down to x^3, and of cos(x) from x^16 down to x^4.
_SINE_SERIES = [(-1) ** (k // 2) / math.factorial(k) for k in range(15, 1, -2)]
_COSINE_SERIES = [(-1) ** (k // 2) / math.factorial(k) for k in range(16, 2, -2)]


def split_quarter_turns(angle: Tensor) -> tuple[Tensor, Tensor]:
    """Write angles as whole quarter turns plus a rest, without rounding.

    Args:
        angle: any shape, floating, degrees, finite.

    Returns:
        (turns, rest): ``turns`` int64 in [-4, 4], ``rest`` in [-45, 45] degrees with
        ``angle = 90 * turns + rest`` modulo 360 exactly. ``rest`` has gradient 1 in ``angle``.
    """
    within_turn = torch.fmod(angle, 360.0)
    # fmod and the subtraction below are exact; only the choice of the turn may round.
    turns = torch.round(within_turn.detach() / 90.0)
    return turns.long(), within_turn - 90.0 * turns


def rotate_quarter_turns(cos: Tensor, sin: Tensor, turns: Tensor) -> tuple[Tensor, Tensor]:
    """Turn unit vectors (cos, sin) by whole quarter turns, exactly.

    Args:
        cos: any shape, floating.
        sin: like ``cos``.
        turns: like ``cos``, integer, any range.

    Returns:
        (cos, sin) of the angle plus ``90 * turns`` degrees.
    """
    odd = (turns & 1) == 1
    negative = (turns & 2) == 2
    # One quarter turn maps (cos, sin) to (-sin, cos); two negate both.
    new_cos = torch.where(odd, -sin, cos)
    new_sin = torch.where(odd, cos, sin)

    return torch.where(negative, -new_cos, new_cos), torch.where(negative, -new_sin, new_sin)


def sincos_degrees(angle: Tensor) -> tuple[Tensor, Tensor]:
    """Sine and cosine of angles in degrees; exactly 0 and +-1 at multiples of 90.

    Args:
        angle: any shape, floating, degrees, finite.

    Returns:
        (sin, cos), shaped and typed like ``angle``.
    """
    turns, rest = split_quarter_turns(angle)
    radians = rest * RADIANS
    cos, sin = rotate_quarter_turns(radians.cos(), radians.sin(), turns)
    return sin, cos


def angle_between_rests(rest1: Tensor, rest2: Tensor) -> tuple[Tensor, Tensor]:
    """Angle 2 minus angle 1 modulo quarter turns, with all the digits in which they differ.

    Equal angles give an exact zero, and angles that differ in their last digits keep these digits;
    ``sin(b) cos(a) - cos(b) sin(a)`` would lose them.

    Args:
        rest1: any shape, floating, degrees in [-45, 45], from :func:`split_quarter_turns`.
        rest2: like ``rest1``.

    Returns:
        (angle, is_turned): degrees in [-45, 45], and whether a quarter turn, of either direction,
        was taken off (bool). Shaped like ``rest1``.
    """
    gap = (rest2 - rest1).detach()
    # Rests of about +45 and -45 are a quarter turn apart: shift both towards zero before the
    # subtraction (exact there), so that the small remaining difference keeps its digits.
    shift = 45.0 * ((gap > 45.0).to(gap.dtype) - (gap < -45.0).to(gap.dtype))

    return (rest2 - shift) - (rest1 + shift), shift != 0


def small_sincos(radians: Tensor) -> tuple[Tensor, Tensor]:
    """Sine and cosine by Taylor's series, to a unit in the last place of float64.

    Made of products and sums alone, so that the result has the same bits on every device and in
    the compiled kernels (``csrc/rotated_geometry.h``), which a library's functions do not promise.

    Args:
        radians: any shape, float64, in [-pi / 4, pi / 4].

    Returns:
        (sin, cos), shaped like ``radians``.
    """
    z = radians * radians
    sin, cos = z * _SINE_SERIES[0] + _SINE_SERIES[1], z * _COSINE_SERIES[0] + _COSINE_SERIES[1]

    # Horner's scheme, whose order of operations the kernels repeat.
    for coefficient in _SINE_SERIES[2:]:
        sin = sin * z + coefficient
    for coefficient in _COSINE_SERIES[2:]:
        cos = cos * z + coefficient

    # The first terms are added last, so that their rounding is the only one that counts.
    return radians + (radians * z) * sin, (1.0 - 0.5 * z) + (z * z) * cos
