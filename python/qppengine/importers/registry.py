# SPDX-License-Identifier: Apache-2.0
"""The registry of importers, and the walk that turns a program into a `Graph` with them.

An importer is a function of an `ImportContext` and a `GraphBuilder` that adds the nodes and returns
the name of the output's value, or a list of names. It raises `UnsupportedError` for arguments that
the engine does not support; the walk goes on, so that one error lists all problems of a network.

A graph holds every tensor as ``[N, C, H, W]``. The dimensions of one with fewer are on some of
these axes, and the other axes have size 1: a matrix is ``[N, C, 1, 1]``, a sequence
``[N, C, 1, W]``. Importers that move them return a `Placed` value; the others need not care.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np

from qppengine.builder import GraphBuilder
from qppengine.errors import Error, ModelError, UnsupportedError, UnsupportedModelError
from qppengine.graph import unique_name
from qppengine.importers.budget import Budget
from qppengine.importers.constants import can_fold, fold, reads_shapes_only
from qppengine.importers.program import AXES, Call, ImportedProgram, Ref, axes_of
from qppengine.passes import name_outputs

if TYPE_CHECKING:
    from qppengine.graph import Graph
    from qppengine.ir import Array, Shape

_T = TypeVar("_T")


_CLOSEST = {
    "upsample_bicubic2d": "upsample_bilinear2d",
    "group_norm": "batch_norm",
    "instance_norm": "batch_norm",
    "layer_norm": "batch_norm",
    "selu": "elu",
    "convolution": "conv2d, as exported without run_decompositions()",
    "_native_batch_norm_legit_no_training": "batch_norm, as exported without run_decompositions()",
    "_upsample_bilinear2d_aa": "upsample_bilinear2d, which is interpolate without antialias",
    "wrap_with_set_grad_enabled": "a module exported under torch.no_grad()",
    "Selu": "Elu",
    "GroupNormalization": "BatchNormalization",
    "InstanceNormalization": "BatchNormalization",
    "LayerNormalization": "BatchNormalization",
    "LRN": "BatchNormalization",
    "LpPool": "AveragePool",
    "GridSample": "Resize",
    "QLinearConv": "Conv of the float model",
    "QuantizeLinear": "the float model, which calibrate quantizes",
    "DequantizeLinear": "the float model, which calibrate quantizes",
}


_MIN_SHARED = 2**23  # elements of constants that several nodes may read in any case


class UpstreamError(UnsupportedError):
    """An input of the operation could not be imported, which has been reported."""


@dataclass(frozen=True)
class Placed:
    """A value of the graph, and the axis of each dimension of the tensor."""

    value: str
    axes: tuple[int, ...]


@dataclass(frozen=True)
class ImportContext:
    """What an importer sees of one call."""

    call: Call
    name: str  # for the node
    _values: dict[str, Placed]
    _program: ImportedProgram
    _constants: Constants

    def value(self, argument: str) -> str:
        """The graph value an argument names."""
        ref = self.get(argument)
        if not isinstance(ref, Ref) or ref.name not in self._values:
            self._constants.expect_known([ref])
            raise UnsupportedError(f"{argument} must be computed from an input of the network")
        return self._values[ref.name].value

    def axes(self, argument: str) -> tuple[int, ...]:
        """The axes in the graph of the dimensions of the tensor that an argument names.

        Tensors an argument lists have to agree in them.
        """
        refs = self.get(argument)
        self.value_list(argument) if isinstance(refs, list) else self.value(argument)
        places = {
            self._values[ref.name].axes for ref in (refs if isinstance(refs, list) else [refs])
        }
        if len(places) != 1:
            raise UnsupportedError(f"{argument} have different layouts")
        return places.pop()

    def axis(self, argument: str, dimension: int) -> int:
        """The axis of one dimension of a tensor; negative ones count from the last."""
        axes = self.axes(argument)
        if not -len(axes) <= dimension < len(axes):
            raise ModelError(f"{self.name}: dimension {dimension} of a tensor that has {len(axes)}")
        if axes.count(axes[dimension]) > 1:
            raise UnsupportedError(
                f"dimension {dimension} of {len(axes)}", closest="up to four dimensions"
            )
        return axes[dimension]

    def image(self, argument: str, graph: GraphBuilder) -> str:
        """The graph value an argument names, its dimensions where those of an image are.

        Where they were only renamed before, pixels move here, for all later readers.
        """
        placed = Placed(self.value(argument), self.axes(argument))
        targets = axes_of(len(placed.axes))
        image = Placed(moved(graph, placed, targets), targets)
        self._values[self.get(argument).name] = image
        return image.value

    def in_order(self, argument: str, graph: GraphBuilder) -> str:
        """The graph value an argument names, its dimensions in order."""
        return _in_order(graph, Placed(self.value(argument), self.axes(argument)))

    def tensor_shape(self, argument: str) -> Shape:
        """The shape of the tensor an argument names, as the program states it."""
        self.value(argument)
        return self._known_shape(self.get(argument).name)

    def output_shape(self) -> Shape:
        """The shape of the first output, as the program states it."""
        return self._known_shape(self.call.outputs[0])

    def output_dtype(self) -> np.dtype[Any]:
        """The dtype of the first output, as the program states it."""
        return self._program.dtypes.get(self.call.outputs[0], np.dtype(np.void))

    def _known_shape(self, name: str) -> Shape:
        if name not in self._program.shapes:
            raise UnsupportedError(f"{name!r} has an unknown rank", closest="a known shape")
        return self._program.shapes[name]

    def is_computed(self, ref: Ref) -> bool:
        """Whether a tensor depends on an input of the network."""
        return ref.name in self._values

    def value_list(self, argument: str) -> list[str]:
        """The graph values an argument lists."""
        refs = self.get(argument)
        if not isinstance(refs, list) or not all(
            isinstance(ref, Ref) and ref.name in self._values for ref in refs
        ):
            raise UnsupportedError(f"{argument} must be computed from an input of the network")
        return [self._values[ref.name].value for ref in refs]

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
        self._constants.expect_known([ref])
        array = self._constants.as_float32(ref.name) if isinstance(ref, Ref) else None
        if array is None:
            raise UnsupportedError(
                f"{argument} must be a float16, float32 or float64 parameter, or a constant"
            )
        return array

    def get(self, argument: str, default: Any = None) -> Any:
        """An argument, or the operator's default where the program leaves it out."""
        return self.call.arguments.get(argument, default)


class Constants:
    """The constants of a program, and the results that depend on them only."""

    def __init__(self, program: ImportedProgram) -> None:
        self._program = program
        self._arrays = dict(program.tensors)
        self._float32: dict[str, Array] = {}
        self._lost: set[str] = set()  # results of calls that could not be folded
        self._bytes = 0  # of the constants of nodes
        allowed = program.limits.computed_bytes + 4 * program.file_bytes
        self._budget = Budget(allowed, "computed_bytes")
        self._read = 0  # elements, counted for every node that reads them
        self._held = sum(array.size for array in program.tensors.values())

    def holds(self, name: str) -> bool:
        """Whether a tensor is a constant."""
        return name in self._arrays

    def expect_known(self, refs: Sequence[Any]) -> None:
        """Raises `UpstreamError` for the results of calls that could not be folded."""
        if any(isinstance(ref, Ref) and ref.name in self._lost for ref in refs):
            raise UpstreamError("a constant that could not be computed")

    def as_float32(self, name: str) -> Array | None:
        """A contiguous array for a node, or None for any other tensor than a floating-point one."""
        array = self._arrays.get(name)
        if array is None or not np.issubdtype(array.dtype, np.floating):
            return None
        self._bytes += 4 * array.size
        self._program.limits.check("constant_bytes", self._bytes, "the constants of all nodes")
        self._read += array.size
        self._program.limits.check(
            "sharing",
            -(-(self._read - _MIN_SHARED) // max(self._held, 1)),
            "elements of the constants of all nodes, as a multiple of those that the file holds",
        )
        if name not in self._float32:
            with np.errstate(over="ignore"):  # becomes infinity, which is refused by Graph
                if array.dtype != np.float32 or not array.flags.c_contiguous:
                    self._budget.reserve(array.size, 4)
                self._float32[name] = np.ascontiguousarray(array, np.float32).reshape(array.shape)
        return self._float32[name]

    def compute(self, call: Call) -> None:
        """Folds a call. Raises `Error`, and `UpstreamError` in whatever needs the result."""
        self._lost.update(call.outputs)
        self.expect_known([*call.refs()])
        shapes = [self._program.shapes[output] for output in call.outputs]
        dtypes = [self._program.dtypes.get(output) for output in call.outputs]
        known = [dtype for dtype in dtypes if dtype is not None]
        if len(known) < len(dtypes):
            raise UnsupportedError("a constant of a dtype that NumPy does not have")
        arguments = {
            name: self._resolved(argument)
            for name, argument in call.arguments.items()
            if not (isinstance(argument, Ref) and reads_shapes_only(call))
        }
        for shape, dtype in zip(shapes, known, strict=True):
            self._budget.reserve(math.prod(size or 1 for size in shape), dtype.itemsize)
        results = fold(call, arguments, shapes, known)
        self._arrays.update(zip(call.outputs, results, strict=True))
        self._lost.difference_update(call.outputs)

    def _resolved(self, argument: Any) -> Any:
        if isinstance(argument, list):
            return [self._resolved(item) for item in argument]
        if not isinstance(argument, Ref):
            return argument
        if argument.name not in self._arrays:
            raise UnsupportedError(f"{argument.name!r} is not a constant of a known dtype")
        return self._arrays[argument.name]


Result: TypeAlias = "str | Placed | list[str | Placed]"
Importer: TypeAlias = Callable[[ImportContext, GraphBuilder], Result]

_IMPORTERS: dict[str, Importer] = {}


def importer(*targets: str) -> Callable[[Importer], Importer]:
    """Registers a function for operators such as "aten.relu.default" or "onnx.Relu"."""

    def register(function: Importer) -> Importer:
        for target in targets:
            if target in _IMPORTERS:
                raise ValueError(f"two importers for {target}")
            _IMPORTERS[target] = function
        return function

    return register


def to_graph(program: ImportedProgram, name: str | None = None) -> Graph:
    """The program as a graph. Raises `UnsupportedModelError` listing all it cannot express."""
    builder = GraphBuilder(name or program.name, program.limits)
    values: dict[str, Placed] = {}
    for value in program.inputs:
        axes = AXES.get(len(program.shapes.get(value.name, value.shape)), AXES[4])
        values[value.name] = Placed(builder.input(value.name, value.shape), axes)
    problems: list[str] = []
    constants = Constants(program)
    for call, node_name in zip(program.calls, _node_names(program.calls), strict=True):
        is_constant = _is_constant(call, values)
        made: list[Any] = [node_name] * len(call.outputs)
        try:
            if is_constant:
                _guarded(call, constants.compute, call)
            else:
                context = ImportContext(call, builder.unique(node_name), values, program, constants)
                result = _import(context, builder)
                made = result if isinstance(result, list) else [result]
        except UpstreamError:  # later calls are examined, too
            pass
        except UnsupportedError as error:
            problems.append(f"{_place(call)}: {call.target}: {error}")
        except ModelError:
            if not problems:  # else a consequence of these
                raise
        if not is_constant:
            placed = (
                item
                if isinstance(item, Placed)
                else Placed(item, _axes(call, output, values, program))
                for item, output in zip(made, call.outputs, strict=False)
            )
            values.update(zip(call.outputs, placed, strict=False))
    if problems:
        raise UnsupportedModelError(tuple(dict.fromkeys(problems)))
    results = _add_outputs(builder, program, values, constants)
    names = list(program.outputs) if program.names_outputs else _distinct(results)
    graph = builder.build()
    if problems := _shape_problems(program, graph, values):
        raise UnsupportedModelError(problems)
    return name_outputs(graph, results, names)


def _add_outputs(
    builder: GraphBuilder,
    program: ImportedProgram,
    values: Mapping[str, Placed],
    constants: Constants,
) -> list[str]:
    """Declares the outputs; returns the value of each."""
    results: list[str] = []
    problems: list[str] = []
    for output in program.outputs:
        if output not in values:
            if not constants.holds(output):
                raise ModelError(f"the output {output!r} is not computed by the program")
            problems.append(f"output {output!r} does not depend on an input")
            continue
        try:
            results.append(_in_order(builder, values[output]))
        except UnsupportedError as error:
            problems.append(f"output {output!r}: {error}")
    if problems:
        raise UnsupportedModelError(problems)
    builder.output(*dict.fromkeys(results))
    return results


def _distinct(names: Sequence[str]) -> list[str]:
    """Names with suffixes where they repeat: a value may be returned twice."""
    distinct: list[str] = []
    for name in names:
        distinct.append(unique_name(name, {*names, *distinct} if name in distinct else ()))
    return distinct


def _is_constant(call: Call, values: Mapping[str, Placed]) -> bool:
    """Whether a call is computed at import."""
    if call.problem or not can_fold(call):
        return False
    return reads_shapes_only(call) or not any(ref.name in values for ref in call.refs())


def _axes(
    call: Call, output: str, values: Mapping[str, Placed], program: ImportedProgram
) -> tuple[int, ...]:
    """The axes of an output: those of the first input that has as many."""
    rank = len(program.shapes[output]) if output in program.shapes else None
    arguments = (a for a in call.arguments.values() if isinstance(a, (Ref, list)) and a)
    for argument in arguments:
        first = argument[0] if isinstance(argument, list) else argument
        if isinstance(first, Ref) and first.name in values:
            axes = values[first.name].axes
            if rank in (None, len(axes)):
                return axes
    return AXES[4] if rank is None else axes_of(rank)


def _shape_problems(
    program: ImportedProgram, graph: Graph, values: Mapping[str, Placed]
) -> list[str]:
    """Where the graph computes tensors of other shapes than the program."""
    problems = []
    for call in program.calls:
        for output in call.outputs:
            if output not in values or output not in program.shapes:
                continue
            axes = values[output].axes
            expected, shape = program.shapes[output], graph.shapes[values[output].value]
            got = tuple(shape[axis] for axis in axes)
            if len(set(axes)) < len(axes):  # several dimensions on one axis
                continue
            rest = [size for axis, size in enumerate(shape) if axis not in axes]
            same = len(expected) == len(got) and all(
                None in pair or pair[0] == pair[1] for pair in zip(expected, got, strict=True)
            )
            if not same or any(size not in (None, 1) for size in rest):
                problems.append(
                    f"{_place(call)}: {call.target}: the engine makes {list(shape)} of a tensor "
                    f"{list(expected)}"
                )
    return problems


def _in_order(graph: GraphBuilder, placed: Placed) -> str:
    """A value whose dimensions are in order, with any of size 1 in between."""
    if placed.axes == tuple(sorted(placed.axes)):
        return placed.value
    return moved(graph, placed, axes_of(len(placed.axes)))


def moved(graph: GraphBuilder, placed: Placed, targets: tuple[int, ...]) -> str:
    """A value whose dimensions are on the axes `targets`."""
    if placed.axes == targets:
        return placed.value
    # Of each axis the one it was; those of size 1 fill the gaps.
    spare = [axis for axis in range(4) if axis not in placed.axes]
    sources = [
        placed.axes[targets.index(axis)] if axis in targets else spare.pop(0) for axis in range(4)
    ]
    sizes = graph.shape(placed.value)[1:]
    if sources[0] != 0 or None in sizes:
        raise UnsupportedError(
            "a transposed image with dynamic dimensions",
            closest="dimensions in the order N, C, H, W",
        )
    return graph.rearrange(placed.value, sizes, [axis - 1 for axis in sources[1:]])


def _place(call: Call) -> str:
    """How errors name a call."""
    return call.node or call.module or "top level"


def _import(context: ImportContext, builder: GraphBuilder) -> Result:
    call = context.call
    if call.problem:
        raise UnsupportedError(call.problem)
    if call.target not in _IMPORTERS:
        raise UnsupportedError("not supported", closest=_CLOSEST.get(call.op))
    return _guarded(call, _IMPORTERS[call.target], context, builder)


def _guarded(call: Call, function: Callable[..., _T], *arguments: Any) -> _T:
    """What a function returns; other exceptions than the package's become a `ModelError`."""
    try:
        return function(*arguments)
    except Error:
        raise
    except Exception as error:  # of arguments that no exporter writes
        raise ModelError(f"{_place(call)}: {call.target}: malformed: {error!r}") from error


def _node_names(calls: Sequence[Call]) -> list[str]:
    """The module path of a call, with the operator's name where paths are not unique.

    That is where a module with submodules, or with several kinds of calls, calls a function itself.
    """
    ops: dict[str, set[str]] = {}
    for call in calls:
        ops.setdefault(call.module, set()).add(call.op)
    containers = {path[:end] for path in ops for end, char in enumerate(path) if char == "."} | {""}
    return [
        ".".join(filter(None, (call.module, call.op)))
        if call.module in containers or len(ops[call.module]) > 1
        else call.module
        for call in calls
    ]
