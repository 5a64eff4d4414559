"""Values of label files in any type that a tool writes: ids, whole numbers, numbers, booleans.

Every reader converts values with these functions, so that both sides of a reference have one type
and ``"0"`` is false everywhere.
"""

from __future__ import annotations

import math
from typing import Any

LARGEST_COORDINATE = 1e9
"""Pixels. Readers drop objects beyond this limit, evaluators refuse them."""

_BOOLEANS = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


def parse_id(value: Any) -> int | str:
    """Convert an id to the form in which ids are compared.

    Args:
        value: a whole number or a text, as a file states it.

    Returns:
        an ``int`` for whole numbers, also those written as ``"1"`` or ``1.0``; other text, such as
        a UUID or ``"007"``, unchanged.

    Raises:
        ValueError: for a value of another type, an empty text, or a broken number.
    """
    # Almost all ids are of this type, and files have millions of them.
    if type(value) is int:
        return value
    if isinstance(value, str):
        text = value.strip()
        if not text:
            raise ValueError("the id is an empty text")

        is_canonical = text.removeprefix("-").isdecimal() and text.isascii()
        return int(text) if is_canonical and str(int(text)) == text else text

    if isinstance(value, int | float) and not isinstance(value, bool) and value % 1 == 0:
        return int(value)
    raise ValueError(f"the id {_short(value)} is neither a whole number nor a text")


def parse_number(value: Any) -> float:
    """Turn a value into a number.

    Args:
        value: a number, or the text of one.

    Returns:
        the number; also NaN and infinite numbers, which `is_coordinate` detects.

    Raises:
        ValueError: for a value of another type, or another text.
    """
    if type(value) is float:
        return value
    # Larger whole numbers may overflow, which the slower path below handles.
    if type(value) is int and -(2**53) <= value <= 2**53:
        return float(value)
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"{_short(value)} is not a number")

    # Python reads "1_0" as 10; in a label file it is a typing error.
    if isinstance(value, str) and "_" in value:
        raise ValueError(f"could not convert string to float: {value!r}")
    try:
        return float(value)
    except OverflowError:
        return math.inf


def parse_whole(value: Any) -> int:
    """Turn a value into a whole number.

    Args:
        value: a whole number, or the text of one; ``"3.0"`` is 3.

    Returns:
        the number.

    Raises:
        ValueError: for a value of another type, a fraction, NaN or an infinite number.
    """
    number = parse_number(value)
    if number % 1 != 0:  # NaN for infinite numbers, too
        raise ValueError(f"{_short(value)} is not a whole number")
    return int(number)


def parse_boolean(value: Any) -> bool:
    """Turn a value into a boolean.

    Args:
        value: a boolean, 0 or 1, one of ``"0"``, ``"1"``, ``"true"``, ``"false"``, ``"yes"``,
            ``"no"`` in any case, or None, which is false.

    Returns:
        the boolean.

    Raises:
        ValueError: for any other value.
    """
    # Almost all files have 0 and 1, so they are tested first.
    if type(value) is int and 0 <= value <= 1:
        return value == 1
    if value is None or value is False or value == "":
        return False
    if isinstance(value, str):
        known = _BOOLEANS.get(value.strip().lower())
        if known is not None:
            return known
    elif isinstance(value, bool | int | float) and value in (0, 1):
        return bool(value)

    raise ValueError(f"{_short(value)} is neither true nor false")


def parse_difficulty(value: Any) -> int:
    """Turn a difficult flag into 0, 1 or 2.

    Args:
        value: a number or text; ``"0.0"`` is 0, true is 1, None is 0.

    Returns:
        0, 1, or 2 for an object that tiling cut.

    Raises:
        ValueError: for any other value.
    """
    try:
        return int(parse_boolean(value))
    except ValueError:
        number = parse_number(value)

    if number not in (0, 1, 2):
        raise ValueError(f"difficult flag {_short(value)}")
    return int(number)


def is_coordinate(*values: float) -> bool:
    """Tell whether numbers can be coordinates: finite, and not beyond ``LARGEST_COORDINATE``."""
    # The sum is a fast test of the usual case; it is NaN if any of the values is.
    if sum(map(abs, values)) < LARGEST_COORDINATE:
        return True
    return all(abs(value) < LARGEST_COORDINATE for value in values)


def shortest_decimal(value: float, decimals: int) -> str:
    """Write a number for a label file.

    Args:
        value: finite number.
        decimals: greatest number of decimals.

    Returns:
        the number without exponent, trailing zeros or a negative zero.
    """
    text = f"{value:.{decimals}f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text == "-0" else text


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
