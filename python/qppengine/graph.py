# SPDX-License-Identifier: Apache-2.0
"""The network as data: a `Graph` of `Node`s over named values.

Every value is a float32 image batch ``[N, C, H, W]``; ``None`` in a shape is any size from 1 on.
A `Graph` that exists is valid: its constructor checks everything and reports all problems at once.
"""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from qppengine.errors import ModelError, ShapeError, listing
from qppengine.operations import Shape, infer_shape, is_int, node_problems

if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Mapping

Array: TypeAlias = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Value:
    """An input of the network."""

    name: str
    shape: Shape


@dataclass(frozen=True, eq=False)
class Node:
    """One operation. `output` is the name of the value it makes.

    With `fp16` it reads fp16 in quantized runs, too (`qppengine.passes.keep_fp16`).
    """

    op: str
    name: str
    inputs: tuple[str, ...]
    output: str
    attributes: Mapping[str, Any] = field(default_factory=dict)
    tensors: Mapping[str, Array] = field(default_factory=dict)
    fp16: bool = False


@dataclass(frozen=True, eq=False)
class Graph:
    """A network: nodes in an order in which they can run. Raises `ModelError` if it is none."""

    name: str
    inputs: tuple[Value, ...]
    outputs: tuple[str, ...]
    nodes: tuple[Node, ...]

    def __post_init__(self) -> None:
        problems = list(_structure_problems(self))
        # Shapes are inferred only through a sound structure.
        problems = problems or list(_shape_problems(self))
        if problems:
            raise ModelError(listing(f"graph {self.name!r} is invalid", problems))

    @cached_property
    def shapes(self) -> dict[str, Shape]:
        """Shape of every value, in order of definition; ``None`` where it depends on the input."""
        return self.infer_shapes({value.name: value.shape for value in self.inputs})

    def infer_shapes(self, inputs: Mapping[str, Shape]) -> dict[str, Shape]:
        """Shape of every value for the given input shapes. Raises `ShapeError` naming the node."""
        shapes = dict(inputs)
        for node in self.nodes:
            shapes[node.output] = infer_shape(node, [shapes[name] for name in node.inputs])
        return shapes

    def closed_shapes(self, size: int) -> dict[str, tuple[int, ...]]:
        """Shape of every value for one image of `size` pixels a side, where that is open.

        Raises `ShapeError` when such an image does not pass.
        """
        shapes = self.infer_shapes(
            {
                value.name: tuple(
                    known if known is not None else (1 if axis == 0 else size)
                    for axis, known in enumerate(value.shape)
                )
                for value in self.inputs
            }
        )
        return cast("dict[str, tuple[int, ...]]", shapes)

    @cached_property
    def consumers(self) -> dict[str, tuple[Node, ...]]:
        """The nodes that read each value."""
        readers: dict[str, list[Node]] = {value: [] for value in self.shapes}
        for node in self.nodes:
            for value in dict.fromkeys(node.inputs):
                readers[value].append(node)
        return {value: tuple(nodes) for value, nodes in readers.items()}

    @cached_property
    def int8_nodes(self) -> frozenset[str]:
        """Names of the nodes that read int8 in a quantized run, but for those that keep fp16.

        That is convolutions, and operations that follow in int8 whose output is read so.
        """
        return frozenset(self._int8_inputs)

    def reads_int8(self, node: Node, index: int = 0) -> bool:
        """Whether a node reads this input in int8 in a quantized run.

        Nodes of `int8_nodes` read all inputs so, but for the residual of a convolution whose output
        nobody reads in int8.
        """
        return index < self._int8_inputs.get(node.name, 0)

    @cached_property
    def _int8_inputs(self) -> Mapping[str, int]:
        """How many inputs the nodes of `int8_nodes` read in int8: the first ones."""
        counts: dict[str, int] = {}
        held: set[str] = set()
        for node in reversed(self.nodes):
            follows = node.op in _FOLLOWS_IN_INT8 and node.output in held
            if not node.fp16 and (_asks_for_int8(node) or follows):
                counts[node.name] = len(node.inputs) if follows else 1
                held.update(node.inputs[: counts[node.name]])
        return counts

    @cached_property
    def row_owners(self) -> Mapping[str, str]:
        """What a quantized run holds in int8, and the value whose row of the QP table it uses.

        The output of an operation in int8 that keeps levels shares the row of its input; every
        other value owns one.
        """
        readers = [node for node in self.nodes if node.name in self.int8_nodes]
        held = {value for node in readers for value in node.inputs[: self._int8_inputs[node.name]]}
        owners = {value: value for value in self.shapes if value in held}
        for node in readers:
            if node.op in KEEPS_LEVELS and node.output in held:
                owners[node.output] = owners[node.inputs[0]]
        return owners

    @cached_property
    def quantized_values(self) -> tuple[str, ...]:
        """The values that own a row of the QP table, as defined."""
        return tuple(value for value, owner in self.row_owners.items() if value == owner)


def unique_name(name: str, taken: Container[str]) -> str:
    """`name`, or with the first free suffix ``_1``, ``_2``, ... when it is taken."""
    candidates = (f"{name}_{i}" if i else name for i in itertools.count())
    return next(candidate for candidate in candidates if candidate not in taken)


# Operations whose int8 output has the levels of the input, and all that read int8 where their
# output is wanted in int8.
KEEPS_LEVELS = frozenset(
    {
        "max_pool2d",
        "adaptive_max_pool2d",
        "slice",
        "pad",
        "resize",
        "flatten",
        "rearrange",
        "pixel_shuffle",
        "pixel_unshuffle",
    }
)
_FOLLOWS_IN_INT8 = KEEPS_LEVELS | {
    "conv2d",
    "add",
    "sub",
    "mul",
    "avg_pool2d",
    "global_avg_pool",
    "adaptive_avg_pool2d",
    "concat",
}


def _asks_for_int8(node: Node) -> bool:
    """Convolutions read int8, save those that only scale and shift channels: they follow."""
    if node.op != "conv2d":
        return False
    filters, *taken = node.tensors["weight"].shape
    return taken != [1, 1, 1] or filters != node.attributes.get("groups", 1)


def _structure_problems(graph: Graph) -> Iterator[str]:
    """Everything that can be told without shape inference."""
    if not graph.inputs:
        yield "it has no inputs"
    if not graph.outputs:
        yield "it has no outputs"
    for kind, names in (
        ("value", [v.name for v in graph.inputs] + [n.output for n in graph.nodes]),
        ("node", [n.name for n in graph.nodes]),
        ("output", graph.outputs),
    ):
        yield from (
            f"{kind} {n!r} is defined {k} times" for n, k in Counter(names).items() if k > 1
        )
        if "" in names:
            yield f"a {kind} has an empty name"
        yield from (f"{kind} {n!r} is not named in Unicode" for n in names if not _is_unicode(n))

    for value in graph.inputs:
        if len(value.shape) != 4:
            yield f"input {value.name!r}: expected [N, C, H, W], got {list(value.shape)}"
        elif value.shape[1] is None:
            yield f"input {value.name!r}: channels must be known, got {list(value.shape)}"
        if not all(size is None or is_int(size, 1) for size in value.shape):
            yield f"input {value.name!r}: sizes must be at least 1, got {list(value.shape)}"

    defined = {value.name for value in graph.inputs}
    for node in graph.nodes:
        yield from (
            f"{node.name}: reads {i!r} before it is defined"
            for i in node.inputs
            if i not in defined
        )
        defined.add(node.output)
        yield from (f"{node.name}: {problem}" for problem in node_problems(node))
    yield from (f"output {name!r} is not defined" for name in graph.outputs if name not in defined)


def _is_unicode(name: str) -> bool:
    """False for a half of a surrogate pair, which no file can hold."""
    return not any("\ud800" <= character <= "\udfff" for character in name)


def _shape_problems(graph: Graph) -> Iterator[str]:
    shapes: dict[str, Shape | None] = {value.name: value.shape for value in graph.inputs}
    for node in graph.nodes:
        inputs = [shape for name in node.inputs if (shape := shapes[name]) is not None]
        shapes[node.output] = None  # unknown after a problem: its consequences are not reported
        if len(inputs) == len(node.inputs):
            try:
                shapes[node.output] = infer_shape(node, inputs)
            except ShapeError as error:
                yield str(error)
