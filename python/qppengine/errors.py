# SPDX-License-Identifier: Apache-2.0
"""Every exception the package raises on purpose, in one small tree, and its warnings.

``except qppengine.Error`` catches them all. Each also derives from the built-in exception a Python
programmer would expect, so code that knows nothing of this package may catch `ValueError`,
`TypeError` or `OSError`. The C++ extension raises the same classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class Error(Exception):
    """Base of all exceptions of this package."""


class ModelError(Error, ValueError):
    """A model file or a graph is malformed: truncated, altered, inconsistent or another version."""


class ShapeError(Error, ValueError):
    """An array has another rank or shape than the network takes; expected and got are told."""


class DTypeError(Error, TypeError):
    """An array has another dtype than float32; the message tells how to convert it."""


class UnsupportedError(Error, ValueError):
    """A request is well formed, but this engine does not offer it."""


class UnsupportedModelError(UnsupportedError):
    """A network holds operations the engine does not have.

    ``problems`` lists all of them, one line each: module path, operation, nearest supported form.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__(tuple(problems))
        self.problems = tuple(problems)

    def __str__(self) -> str:
        return listing("the network cannot be imported", self.problems)


class NonFiniteError(Error, ValueError):
    """NaN or infinity where a quantized network needs finite numbers; the value is named."""


class CalibrationError(Error, ValueError):
    """A calibration set is empty, too small to fit on, or belongs to another network."""


class FileError(Error, OSError):
    """A file cannot be read or written; the message names the path and the cause."""


class FixedSizesWarning(UserWarning):
    """A network was imported for images of one size, since the engine runs it at fixed sizes only.

    The message names the size and the reason. `from_torch(..., dynamic_shapes={})` imports with the
    sizes of the example, and does not warn.
    """


def listing(headline: str, problems: Sequence[str]) -> str:
    """`headline` and all problems, one a line, so that a user need not meet them one by one."""
    return "\n  - ".join(
        [f"{headline} ({len(problems)} problem{'s' * (len(problems) != 1)}):", *problems]
    )
