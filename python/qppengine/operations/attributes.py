# SPDX-License-Identifier: Apache-2.0
"""Kinds of attributes: which values each accepts, and how errors describe these."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class Attribute(NamedTuple):
    """One kind of attribute. ``expected`` completes the sentence "the attribute must be ..."."""

    expected: str
    accepts: Callable[[Any], bool]


def is_int(value: Any, minimum: int | None = None) -> bool:
    """Whether it is an integer, not a bool, and not below `minimum`."""
    is_integer = isinstance(value, int) and not isinstance(value, bool)
    return is_integer and (minimum is None or value >= minimum)


def is_number(value: Any) -> bool:
    """Whether it is a finite number, not a bool."""
    is_real = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_real and abs(value) <= sys.float_info.max


def is_list(value: Any, lengths: Sequence[int], accepts: Callable[[Any], bool]) -> bool:
    """Whether it is a list or tuple of one of these lengths, all of whose items are accepted."""
    has_length = isinstance(value, (list, tuple)) and len(value) in lengths
    return has_length and all(accepts(item) for item in value)


def integer(minimum: int, maximum: int | None = None) -> Attribute:
    """An integer within a range."""
    expected = f"of at least {minimum}" if maximum is None else f"from {minimum} to {maximum}"
    return Attribute(
        f"an integer {expected}",
        lambda n: is_int(n, minimum) and (maximum is None or n <= maximum),
    )


def pair(minimum: int) -> Attribute:
    """Two integers: height, width."""
    return Attribute(
        f"two integers of at least {minimum}",
        lambda value: is_list(value, (2,), lambda item: is_int(item, minimum)),
    )


def choice(*names: str) -> Attribute:
    """One of several strings."""
    return Attribute(
        f"one of {', '.join(names)}", lambda value: isinstance(value, str) and value in names
    )


FLAG = Attribute("true or false", lambda value: isinstance(value, bool))
INTEGER = Attribute("an integer", is_int)
NUMBER = Attribute("a finite number", is_number)
POSITIVE = Attribute("a finite number above 0", lambda value: is_number(value) and value > 0)
# Height and width; or top, left, bottom and right.
PADDING = Attribute(
    "two or four integers of at least 0",
    lambda value: is_list(value, (2, 4), lambda item: is_int(item, 0)),
)
INTERVAL = Attribute(
    "two finite numbers lo <= hi",
    lambda value: is_list(value, (2,), is_number) and value[0] <= value[1],
)
