"""Checks that the settings of all generators share."""

from __future__ import annotations

from collections.abc import Mapping


def image_shape(size: int | tuple[int, int], least: int, most: int) -> tuple[int, int]:
    """Read the size of an image as its height and width.

    Args:
        size: (height, width) in pixels, or one number for both.
        least: smallest side, pixels.
        most: largest side, pixels.

    Returns:
        (height, width).

    Raises:
        ValueError: if these are not one or two whole numbers within the limits.
    """
    sides = (size, size) if isinstance(size, int) else tuple(size)

    if len(sides) != 2 or not all(isinstance(s, int) and least <= s <= most for s in sides):
        raise ValueError(
            f"size must be one or two whole numbers from {least} to {most} (height, width), "
            f"got {size}"
        )
    return sides[0], sides[1]


def check_limits(settings: object, limits: Mapping[str, tuple[float, float]]) -> None:
    """Check that each setting lies within its limits.

    Args:
        settings: object that has an attribute of each name.
        limits: name -> (lowest, highest) value.

    Raises:
        ValueError: names the setting, its limits and its value.
    """
    for name, (low, high) in limits.items():
        value = getattr(settings, name)
        if not low <= value <= high:
            raise ValueError(f"{name} must lie between {low} and {high}, got {value}")
