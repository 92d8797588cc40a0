# SPDX-License-Identifier: Apache-2.0
"""The parts of a `Graph`: shapes, inputs and nodes, as plain data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Array: TypeAlias = npt.NDArray[np.float32]
# [N, C, H, W]; None is any size from 1 on.
Shape: TypeAlias = tuple[int | None, ...]


@dataclass(frozen=True)
class InputInfo:
    """An input of the network."""

    name: str
    shape: Shape


@dataclass(frozen=True, eq=False)
class Node:
    """One operation. `output` is the name of the value it computes.

    With `fp16` it reads fp16 in quantized runs, too (`qppengine.passes.keep_fp16`).
    """

    op: str
    name: str
    inputs: tuple[str, ...]
    output: str
    attributes: Mapping[str, Any] = field(default_factory=dict)
    tensors: Mapping[str, Array] = field(default_factory=dict)
    fp16: bool = False


def channels_of(shape: Shape) -> int:
    """The channels, which are always known."""
    assert shape[1] is not None
    return shape[1]


def sides(padding: Sequence[int]) -> tuple[int, int, int, int]:
    """Top, left, bottom and right of an attribute ``padding`` of two or four numbers."""
    top, left, bottom, right = padding if len(padding) == 4 else (*padding, *padding)
    return top, left, bottom, right
