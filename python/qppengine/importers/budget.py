# SPDX-License-Identifier: Apache-2.0
"""Counts the memory and the time that constants computed at import take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qppengine.errors import ModelError

if TYPE_CHECKING:
    import numpy.typing as npt

_TIMES = 16  # the bytes that may be written, for each that may be held


class Budget:
    """Counts the bytes of arrays that are made: all of them, and those that are alive."""

    def __init__(self, limit: int, name: str) -> None:
        self._limit, self._name = limit, name
        self._spent = self._alive = 0

    def spend(self, size: int) -> None:
        """Counts work that takes time only, in written bytes. Raises `ModelError`."""
        self._spent += size
        if self._spent > _TIMES * self._limit:
            raise self._error(self._spent)

    def reserve(self, elements: int, item_bytes: int = 8) -> None:
        """Counts an array before it is made. Raises `ModelError` if it is too large."""
        self._alive += elements * item_bytes
        if self._alive > self._limit:
            raise self._error(self._alive)
        self.spend(elements * item_bytes)

    def release(self, tensor: npt.NDArray[Any]) -> None:
        """Gives back the bytes of an array, unless it is part of another."""
        if tensor.flags.owndata:
            self._alive = max(0, self._alive - tensor.nbytes)

    def _error(self, size: int) -> ModelError:
        return ModelError(
            f"constants that are computed at import need {size} bytes; the limit {self._name} and "
            f"the size of the model allow {self._limit}, and {_TIMES} times that in all; pass "
            f"limits=Limits({self._name}=...) with more if the file can be trusted"
        )
