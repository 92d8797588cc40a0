# SPDX-License-Identifier: Apache-2.0
"""What the readers of all formats hand to the importers: operations on named tensors, as data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from qppengine.limits import DEFAULT_LIMITS, Limits

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy as np
    import numpy.typing as npt

    from qppengine.ir import InputInfo, Shape

# By rank, the axes in [N, C, H, W] of a tensor's dimensions unless an importer moves them.
AXES: Mapping[int, tuple[int, ...]] = {0: (), 1: (1,), 2: (0, 1), 3: (0, 1, 3), 4: (0, 1, 2, 3)}


def axes_of(rank: int) -> tuple[int, ...]:
    """`AXES`; of more than four dimensions, all that are too many share the axis of channels."""
    return AXES[rank] if rank in AXES else (0, *[1] * (rank - 3), 2, 3)


def as_image(shape: Shape) -> Shape:
    """The shape ``[N, C, H, W]`` of a tensor of up to four dimensions, in their usual places."""
    image: list[int | None] = [1] * 4
    for axis, size in zip(AXES[len(shape)], shape, strict=True):
        image[axis] = size
    return tuple(image)


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
    problem: str = ""  # why it cannot be imported, where the reader knows

    @property
    def op(self) -> str:
        """The operator's bare name: "relu" of "aten.relu.default"."""
        return self.target.partition(".")[2].partition(".")[0]

    def refs(self) -> Iterator[Ref]:
        """The tensors it reads."""
        for argument in self.arguments.values():
            for item in argument if isinstance(argument, list) else [argument]:
                if isinstance(item, Ref):
                    yield item


def needed_calls(calls: Sequence[Call], outputs: Sequence[str]) -> tuple[Call, ...]:
    """The calls on which outputs depend, in their order."""
    needed = set(outputs)
    kept = []
    for call in reversed(calls):
        if needed.intersection(call.outputs):
            kept.append(call)
            needed.update(ref.name for ref in call.refs())
    return tuple(reversed(kept))


@dataclass(frozen=True)
class ImportedProgram:
    """An exported program without side effects: no call changes a tensor that exists.

    `tensors` holds parameters, buffers and constants. `shapes` and `dtypes` describe the
    tensors of the file, of any rank; a dynamic dimension is None.
    """

    name: str  # class of the exported module
    inputs: tuple[InputInfo, ...]
    outputs: tuple[str, ...]
    calls: tuple[Call, ...]
    tensors: Mapping[str, npt.NDArray[Any]]
    shapes: Mapping[str, Shape] = field(default_factory=dict)
    dtypes: Mapping[str, np.dtype[Any]] = field(default_factory=dict)
    limits: Limits = DEFAULT_LIMITS
    file_bytes: int = 0
    names_outputs: bool = False  # whether the names of outputs are the user's, and to be kept
