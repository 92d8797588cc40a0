# SPDX-License-Identifier: Apache-2.0
"""What the readers of all formats hand to the importers: operations on named tensors, as data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from qppengine.graph import Array, Value
    from qppengine.operations import Shape

# By rank, where the dimensions of a tensor lie among [N, C, H, W] unless an importer moves them.
AXES: Mapping[int, tuple[int, ...]] = {0: (), 1: (1,), 2: (0, 1), 3: (0, 1, 3), 4: (0, 1, 2, 3)}


def axes_of(rank: int) -> tuple[int, ...]:
    """`AXES`; of more than four dimensions, all that are too many share the axis of channels."""
    return AXES[rank] if rank in AXES else (0, *[1] * (rank - 3), 2, 3)


@dataclass(frozen=True)
class Ref:
    """An argument that is a tensor of the program, by name."""

    name: str


@dataclass(frozen=True)
class Other:
    """An argument of a kind no supported operation takes, such as a symbolic size."""

    kind: str


@dataclass(frozen=True)
class Call:
    """One operation: target such as "aten.relu.default", path of the module that called it."""

    target: str
    module: str
    arguments: Mapping[str, Any]  # None, bool, int, float, str, Ref, Other, or a list of these
    outputs: tuple[str, ...]
    node: str = ""  # its own name, where the format has one


@dataclass(frozen=True)
class Program:
    """An exported program. `tensors` holds parameters, buffers and constants of a float dtype.

    `shapes` holds what the file tells of its tensors, of any rank; a size that is open is None.
    """

    name: str  # class of the exported module
    inputs: tuple[Value, ...]
    outputs: tuple[str, ...]
    calls: tuple[Call, ...]
    tensors: Mapping[str, Array]
    shapes: Mapping[str, Shape] = field(default_factory=dict)
    names_outputs: bool = False  # whether the names of outputs are the user's, and to be kept
