# SPDX-License-Identifier: Apache-2.0
"""The network as data: a `Graph` of `Node`s over named values.

Every value is a float32 image batch ``[N, C, H, W]``; ``None`` in a shape is any size from 1 on.
A `Graph` that exists is valid: its constructor checks everything and reports all problems at once.
"""

from __future__ import annotations

import itertools
import reprlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

from qppengine.errors import ModelError, ShapeError, listing
from qppengine.int8_plan import Int8Plan, plan_int8
from qppengine.ir import InputInfo, Node
from qppengine.operations import infer_shape, node_problems
from qppengine.operations.attributes import Attribute, is_int

if TYPE_CHECKING:
    from collections.abc import Container, Iterator

    from qppengine.ir import Shape


@dataclass(frozen=True, eq=False)
class Graph:
    """A network: nodes in an order in which they can run. Raises `ModelError` if it is none."""

    name: str
    inputs: tuple[InputInfo, ...]
    outputs: tuple[str, ...]
    nodes: tuple[Node, ...]

    def __post_init__(self) -> None:
        problems = list(_all_type_problems(self)) or list(_structure_problems(self))
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

    def resolve_shapes(self, size: int) -> dict[str, tuple[int, ...]]:
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
        """Names of the nodes that read int8 in a quantized run.

        These are convolutions and the operations that propagate int8 to them, except for nodes that
        keep fp16.
        """
        return frozenset(name for name, count in self._int8_inputs.items() if count)

    def reads_int8(self, node: Node, index: int = 0) -> bool:
        """Whether a node reads this input in int8 in a quantized run.

        Nodes of `int8_nodes` read all inputs so, except for the residual of a convolution whose
        output no node reads in int8.
        """
        return index < self._int8_inputs[node.name]

    def shares_qparams(self, node: Node) -> bool:
        """Whether the int8 output of a node has the quantization parameters of its input."""
        groups = self.qparams_groups
        return (
            self.reads_int8(node)
            and node.output in groups
            and groups[node.output] == groups[node.inputs[0]]
        )

    @cached_property
    def qparams_groups(self) -> Mapping[str, str]:
        """For each value in int8, in order of definition, the value whose qparams it uses.

        The output of an operation in int8 that only moves or selects elements shares the qparams of
        its input; every other value has its own.
        """
        groups = self._int8_plan.groups
        return {value: groups[value] for value in self.shapes if value in groups}

    @cached_property
    def quantized_values(self) -> tuple[str, ...]:
        """The values that have qparams of their own, in order of definition."""
        return tuple(value for value, group in self.qparams_groups.items() if value == group)

    @cached_property
    def _int8_plan(self) -> Int8Plan:
        return plan_int8(self.nodes)

    @cached_property
    def _int8_inputs(self) -> Mapping[str, int]:
        """How many inputs each node reads in int8: the first ones."""
        names = (node.name for node in self.nodes)
        return dict(zip(names, self._int8_plan.int8_inputs, strict=True))


def unique_name(name: str, taken: Container[str]) -> str:
    """`name`, or with the first free suffix ``_1``, ``_2``, ... when it is taken."""
    candidates = (f"{name}_{i}" if i else name for i in itertools.count())
    return next(candidate for candidate in candidates if candidate not in taken)


def _tuple_of(kind: type[Any], expected: str) -> Attribute:
    return Attribute(
        expected,
        lambda items: (
            isinstance(items, (tuple, list)) and all(isinstance(item, kind) for item in items)
        ),
    )


_STRING = Attribute("a string", lambda value: isinstance(value, str))
_MAPPING = Attribute("a mapping of names", lambda value: isinstance(value, Mapping))
_NAMES = _tuple_of(str, "a tuple of names")
_GRAPH_FIELDS = {
    "name": _STRING,
    "inputs": _tuple_of(InputInfo, "a tuple of InputInfo objects"),
    "outputs": _NAMES,
    "nodes": _tuple_of(Node, "a tuple of Node objects"),
}
_INPUT_FIELDS = {"name": _STRING, "shape": _tuple_of(object, "a tuple of sizes")}
_NODE_FIELDS = {
    "op": _STRING,
    "name": _STRING,
    "inputs": _NAMES,
    "output": _STRING,
    "attributes": _MAPPING,
    "tensors": _MAPPING,
}


def _type_problems(item: Any, fields: Mapping[str, Attribute]) -> Iterator[str]:
    """Fields of other types than they are declared with."""
    for name, (expected, accepts) in fields.items():
        value = getattr(item, name)
        if not accepts(value):
            owner = type(item).__name__
            yield f"{name} of a {owner} must be {expected}, got {reprlib.repr(value)}"


def _all_type_problems(graph: Graph) -> Iterator[str]:
    problems = list(_type_problems(graph, _GRAPH_FIELDS))
    yield from problems
    if not problems:
        for value in graph.inputs:
            yield from _type_problems(value, _INPUT_FIELDS)
        for node in graph.nodes:
            yield from _type_problems(node, _NODE_FIELDS)


def _structure_problems(graph: Graph) -> Iterator[str]:
    """All problems that need no shape inference."""
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
