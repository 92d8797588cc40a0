# SPDX-License-Identifier: Apache-2.0
"""The registry of importers, and the walk that turns an exported program into a `Graph` with them.

An importer is a function of an `Operation` and a `GraphBuilder` that adds the nodes and returns the
name of the value that stands for the operation's output. It raises `UnsupportedError` for arguments
the engine has no equal of; the walk goes on, so that one error lists all of a network's problems.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from qppengine.errors import ModelError, UnsupportedError, UnsupportedModelError
from qppengine.graph import Array, Graph, GraphBuilder, Shape
from qppengine.importers.pt2 import Call, Program, Ref

_NEAREST = {
    "adaptive_max_pool2d": "max_pool2d",
    "conv_transpose2d": "conv2d, then pixel_shuffle",
    "upsample_bicubic2d": "upsample_bilinear2d",
    "pad": "the zero padding of conv2d",
    "group_norm": "batch_norm",
    "instance_norm": "batch_norm",
    "layer_norm": "batch_norm",
    "celu": "relu",
    "elu": "relu or tanh",
    "gelu": "relu",
    "convolution": "conv2d, as exported without run_decompositions()",
    "_native_batch_norm_legit_no_training": "batch_norm, as exported without run_decompositions()",
}


class UpstreamError(UnsupportedError):
    """What an operation reads could not be imported, which is told already."""


@dataclass(frozen=True)
class Operation:
    """What an importer sees of one call."""

    call: Call
    name: str  # for the node
    _values: Mapping[str, str]
    _tensors: Mapping[str, Array]

    def value(self, argument: str) -> str:
        """The graph value an argument names."""
        ref = self.get(argument)
        if not isinstance(ref, Ref) or ref.name not in self._values:
            raise UnsupportedError(f"{argument} must be computed from an input of the network")
        return self._values[ref.name]

    def value_list(self, argument: str) -> list[str]:
        """The graph values an argument lists."""
        refs = self.get(argument)
        if not isinstance(refs, list) or not all(
            isinstance(ref, Ref) and ref.name in self._values for ref in refs
        ):
            raise UnsupportedError(f"{argument} must be computed from an input of the network")
        return [self._values[ref.name] for ref in refs]

    def shape(self, argument: str, graph: GraphBuilder) -> Shape:
        """The shape of the graph value an argument names."""
        try:
            return graph.shape(self.value(argument))
        except ModelError as error:
            raise UpstreamError(str(error)) from error

    def tensor(self, argument: str) -> Array | None:
        """The weights an argument names, or None when there are none."""
        ref = self.get(argument)
        if ref is None:
            return None
        if not isinstance(ref, Ref) or ref.name not in self._tensors:
            raise UnsupportedError(f"{argument} must be a float16, float32 or float64 parameter")
        return self._tensors[ref.name]

    def get(self, argument: str, default: Any = None) -> Any:
        """An argument, or the operator's default where the program leaves it out."""
        return self.call.arguments.get(argument, default)


Importer: TypeAlias = Callable[[Operation, GraphBuilder], str]

_IMPORTERS: dict[str, Importer] = {}


def importer(*targets: str) -> Callable[[Importer], Importer]:
    """Registers a function for operators such as "aten.relu.default"."""

    def register(function: Importer) -> Importer:
        for target in targets:
            if target in _IMPORTERS:
                raise ValueError(f"two importers for {target}")
            _IMPORTERS[target] = function
        return function

    return register


def to_graph(program: Program, name: str | None = None) -> Graph:
    """The program as a graph. Raises `UnsupportedModelError` listing all it cannot express."""
    builder = GraphBuilder(name or program.name)
    values = {value.name: builder.input(value.name, value.shape) for value in program.inputs}
    problems: list[str] = []
    for call, node_name in zip(program.calls, _node_names(program.calls), strict=True):
        operation = Operation(call, builder.unique(node_name), values, program.tensors)
        try:
            result = _import(operation, builder)
        except UpstreamError:
            result = node_name
        except UnsupportedError as error:
            problems.append(f"{call.module or 'top level'}: {call.target}: {error}")
            result = node_name  # lets the calls behind it be examined too
        if _op(call).endswith("_"):  # in place: all names of the tensor now name the result
            target = call.arguments.get("self", call.arguments.get("input"))
            old = values.get(target.name) if isinstance(target, Ref) else None
            values.update({alias: result for alias, value in values.items() if value == old})
        values.update(dict.fromkeys(call.outputs, result))
    if problems:
        raise UnsupportedModelError(problems)
    for output in program.outputs:
        if output not in values:
            raise ModelError(f"the output {output!r} is not computed by the program")
        builder.output(values[output])
    return builder.build()


def _import(operation: Operation, builder: GraphBuilder) -> str:
    target = operation.call.target
    if target not in _IMPORTERS:
        nearest = _NEAREST.get(_op(operation.call).rstrip("_"), "none")
        raise UnsupportedError(f"not supported; nearest is {nearest}")
    return _IMPORTERS[target](operation, builder)


def _op(call: Call) -> str:
    """The operator's bare name: "relu" of "aten.relu.default"."""
    return call.target.partition(".")[2].partition(".")[0]


def _node_names(calls: Sequence[Call]) -> list[str]:
    """The module path of a call, with the operator's name where a path alone would not tell.

    That is where a module with submodules, or with several kinds of calls, calls a function itself.
    """
    ops: dict[str, set[str]] = {}
    for call in calls:
        ops.setdefault(call.module, set()).add(_op(call))
    containers = {path[:end] for path in ops for end, char in enumerate(path) if char == "."} | {""}
    return [
        ".".join(filter(None, (call.module, _op(call).rstrip("_"))))
        if call.module in containers or len(ops[call.module]) > 1
        else call.module
        for call in calls
    ]
