# SPDX-License-Identifier: Apache-2.0
"""The package's exceptions and warnings.

``except qppengine.Error`` catches all exceptions. Each also derives from the matching built-in
exception, so that generic code can catch `ValueError`, `TypeError` or `OSError`. The C++ extension
raises the same classes.
"""

from __future__ import annotations

import reprlib
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_T = TypeVar("_T")


class Error(Exception):
    """Base of all exceptions of this package."""


class ModelError(Error, ValueError):
    """A model file or a graph is malformed: truncated, altered, inconsistent or another version."""


class ShapeError(Error, ValueError):
    """An array has another rank or shape than the network expects; the message names both."""


class DTypeError(Error, TypeError):
    """An array has another dtype than float32; the message says how to convert it."""


class UnsupportedError(Error, ValueError):
    """A request is well formed, but this engine does not support it.

    ``closest`` describes the supported form that is closest to the request.
    """

    def __init__(self, problem: object, *, closest: str | None = None) -> None:
        super().__init__(
            problem if closest is None else f"{problem}; closest supported form: {closest}"
        )


class UnsupportedModelError(UnsupportedError):
    """A network contains operations that the engine does not support.

    ``problems`` lists all of them, one line each: module path, operation, closest supported form.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__(tuple(problems))
        self.problems = tuple(problems)

    def __str__(self) -> str:
        return listing("the network cannot be imported", self.problems)


class NonFiniteError(Error, ValueError):
    """NaN or infinity in an input of a quantized scheme, or from finite inputs; names the value."""


class CalibrationError(Error, ValueError):
    """A calibration set is empty, too small to fit on, or belongs to another network."""


class FileError(Error, OSError):
    """A file cannot be read or written; the message names the path and the cause."""


class FixedSizesWarning(UserWarning):
    """A network was imported for images of one size, since the engine runs it at fixed sizes only.

    The message names the size and the reason. `from_torch(..., dynamic_shapes={})` imports with the
    sizes of the example, and does not warn.
    """


def expect_type(name: str, value: _T, kind: type[Any] | tuple[type[Any], ...], what: str) -> _T:
    """The argument `name` of a function. Raises `UnsupportedError` if it has another type."""
    if not isinstance(value, kind):
        raise UnsupportedError(f"{name}: expected {what}, got {reprlib.repr(value)}")
    return value


def expect_list(name: str, value: Iterable[_T], kind: type[Any], what: str) -> tuple[_T, ...]:
    """An argument that lists items of one type. Raises `CalibrationError` for all others."""
    items = tuple(value) if hasattr(value, "__iter__") and not isinstance(value, str) else None
    if items is None or not all(isinstance(item, kind) for item in items):
        raise CalibrationError(f"{name}: expected {what}, got {reprlib.repr(value)}")
    return items


def listing(headline: str, problems: Sequence[str]) -> str:
    """`headline`, the number of problems, and all problems, one per line."""
    return "\n  - ".join(
        [f"{headline} ({len(problems)} problem{'s' * (len(problems) != 1)}):", *problems]
    )
