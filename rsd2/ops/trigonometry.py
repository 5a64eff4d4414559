"""Sine and cosine of angles in degrees, exact at the quarter turns, for the rotated operators.

Detectron2 keeps angles in degrees, where a quarter turn is an exact number; in radians it is not.
Taking whole quarter turns off first (an exact operation on floats) makes ``cos(90)`` exactly 0 and
lets two angles be compared without losing the digits in which they differ.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_RADIANS = math.pi / 180.0


def split_quarter_turns(angle: Tensor) -> tuple[Tensor, Tensor]:
    """Write angles as whole quarter turns plus a rest, without rounding.

    Args:
        angle: any shape, floating, degrees, finite.

    Returns:
        (turns, rest): ``turns`` int64 in [-4, 4], ``rest`` in [-45, 45] degrees with
        ``angle = 90 * turns + rest`` modulo 360 exactly. ``rest`` has gradient 1 in ``angle``.
    """
    within_turn = torch.fmod(angle, 360.0)
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
    radians = rest * _RADIANS
    cos, sin = rotate_quarter_turns(radians.cos(), radians.sin(), turns)
    return sin, cos


def sincos_between_rests(turns1: Tensor, rest1: Tensor, turns2: Tensor, rest2: Tensor):
    """Sine and cosine of angle 2 minus angle 1, to full relative precision near quarter turns.

    Equal angles (also modulo 90) give exact zeros, and angles that differ in their last digits
    keep these digits; ``sin(b) cos(a) - cos(b) sin(a)`` would lose them.

    Args:
        turns1: any shape, integer, from :func:`split_quarter_turns`.
        rest1: like ``turns1``, floating, degrees in [-45, 45].
        turns2: like ``turns1``.
        rest2: like ``rest1``.

    Returns:
        (sin, cos) of the difference, shaped like ``rest1``.
    """
    rest = rest2 - rest1
    # Rests of about +45 and -45 are a quarter turn apart: shift both towards zero before the
    # subtraction (exact there), so that the small remaining difference keeps its digits.
    extra = (rest > 45.0).to(rest.dtype) - (rest < -45.0).to(rest.dtype)
    rest = (rest2 - 45.0 * extra) - (rest1 + 45.0 * extra)
    radians = rest * _RADIANS
    turns = turns2 - turns1 + extra.to(turns1.dtype)
    cos, sin = rotate_quarter_turns(radians.cos(), radians.sin(), turns)
    return sin, cos
