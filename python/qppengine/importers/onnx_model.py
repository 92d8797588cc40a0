# SPDX-License-Identifier: Apache-2.0
"""Reads ONNX models: resolves defaults and constants, and leaves the operations on images.

Computations on shapes (``Shape``, ``Gather``, ``Concat``, ...) and on weights only are folded. No
code of ONNX runs on a model that has not been checked: `onnx_file` checks it,
`onnx_shapes` infers shapes, `onnx_constants` folds, and each enforces the `Limits` of the
file.
"""

from __future__ import annotations

import math
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from qppengine.errors import Error, ModelError, UnsupportedModelError
from qppengine.importers.budget import Budget
from qppengine.importers.onnx_constants import fold, is_foldable
from qppengine.importers.onnx_file import OnnxGraph, OnnxNode, Unread, read_file
from qppengine.importers.onnx_shapes import Reads, Sizes, UnknownError, infer_shapes, resize_scales
from qppengine.importers.program import AXES, Call, ImportedProgram, Other, Ref
from qppengine.ir import Array, InputInfo
from qppengine.limits import DEFAULT_LIMITS, Limits

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping, Sequence

    import numpy.typing as npt
    import onnx

    from qppengine.ir import Shape

_FLOATS = (1, 10, 11, 16)  # FLOAT, FLOAT16, DOUBLE, BFLOAT16
_MAX_NUMBERS = 2**16  # in an argument that is integers; no importer takes as many
# What may read integers that are computed from an image: the engine holds these as floats.
_MOVES = frozenset(
    f"onnx.{op}"
    for op in ("Cast", "Concat", "Flatten", "Identity", "Reshape", "Slice", "Split", "Squeeze")
) | {"onnx.Transpose", "onnx.Unsqueeze"}

_WINDOWS = {"kernel_shape", "strides", "dilations", "pads", "output_padding"}


def read_onnx(
    source: str | os.PathLike[str] | bytes | onnx.ModelProto, limits: Limits = DEFAULT_LIMITS
) -> ImportedProgram:
    """The program in an ONNX file, its bytes, or a model in memory.

    Raises `ModelError` for a malformed model or one beyond `limits`, `UnsupportedModelError` for
    one that takes something else than floating-point tensors, `UnsupportedError` for another
    operator set, `FileError`.
    """
    try:
        return _Reader(read_file(source, limits), limits).read()
    except (Error, ImportError):
        raise
    except Exception as error:  # protobuf names no exceptions for a damaged model
        raise ModelError(f"not a readable ONNX model: {error}") from error


class _Reader:
    """Walks a model once. Tensors are known by their names."""

    def __init__(self, graph: OnnxGraph, limits: Limits) -> None:
        self._graph = graph
        self._limits = limits
        self._images = {info.name for info in graph.inputs}  # computed from an input, unlike sizes
        self._trials: _Trials
        self._tensors: dict[str, Array] = {}

    def read(self) -> ImportedProgram:
        self._check_inputs()
        nodes = _needed(self._graph.nodes, self._graph.outputs)
        for node in nodes:
            if _is_computed(node, self._images):
                self._images.update(filter(None, node.outputs))
        self._trials = _Trials(self._graph, nodes, self._images, self._limits)
        inputs = self._inputs()
        if problems := [
            f"output {name!r} does not depend on an input"
            for name in self._graph.outputs
            if name not in self._images
        ] + _integer_problems(nodes, self._images):
            raise UnsupportedModelError(problems)
        calls = [self._call(node) for node in nodes if _is_computed(node, self._images)]
        names = self._trials.names
        shapes = {name: shape for name in names if (shape := self._shape(name)) is not None}
        return ImportedProgram(
            self._graph.name,
            inputs,
            self._graph.outputs,
            tuple(calls),
            self._tensors,
            shapes,
            limits=self._limits,
            names_outputs=True,
        )

    def _check_inputs(self) -> None:
        problems = []
        for info in self._graph.inputs:
            if info.element_type not in _FLOATS:
                problems.append(
                    f"input {info.name!r} is not a tensor of floating-point numbers; closest "
                    "supported form: FLOAT"
                )
            elif info.shape is None or len(info.shape) not in AXES:
                rank = "unknown rank" if info.shape is None else f"{len(info.shape)} dimensions"
                problems.append(
                    f"input {info.name!r} has {rank}; closest supported form: [N, C, H, W]"
                )
            elif len(info.shape) > 1 and not isinstance(info.shape[1], int):
                sizes = ["any" if size is None else size for size in info.shape]
                problems.append(
                    f"input {info.name!r} is {sizes}: the second dimension, channels, must be "
                    "known; closest supported form: an export with fixed sizes, or [N, C, H, W]"
                )
        if problems:
            raise UnsupportedModelError(problems)

    def _inputs(self) -> tuple[InputInfo, ...]:
        inputs = []
        for info in self._graph.inputs:
            image: list[int | None] = [1] * 4
            shape = self._shape(info.name) or ()
            for axis, size in zip(AXES[len(shape)], shape, strict=True):
                image[axis] = size
            inputs.append(InputInfo(info.name, tuple(image)))
        return tuple(inputs)

    def _shape(self, name: str) -> Shape | None:
        """The shape of a tensor as far as it is known; None is any size."""
        shapes = self._trials.shapes_of(name)
        if shapes is None or len(set(map(len, shapes))) != 1:
            return None
        return tuple(
            sizes[0] if len(set(sizes)) == 1 else None for sizes in zip(*shapes, strict=True)
        )

    def _call(self, node: OnnxNode) -> Call:
        arguments: dict[str, Any] = {
            name: Other(value.kind) if isinstance(value, Unread) else value
            for name, value in node.attributes.items()
        }
        for name, value in node.inputs.items():
            arguments[name] = (
                self._argument(value)
                if isinstance(value, str)
                else list(map(self._argument, value))
            )
        if node.target == "onnx.Resize":
            arguments |= self._common_scales(node)
        return Call(node.target, node.module, arguments, node.outputs, node.label)

    def _common_scales(self, node: OnnxNode) -> dict[str, Any]:
        """Scales in place of dynamic dimensions, such as another image's, where the trials agree.

        Also where both axes keep one scale, which is not the quotient of the sizes.
        """
        name = node.outputs[0]
        keeps_aspect = node.attributes.get("keep_aspect_ratio_policy", "stretch") != "stretch"
        if None not in (self._shape(name) or (None,))[2:] and not keeps_aspect:
            return {}
        ratios = self._trials.resize_scales(node)
        if ratios is None or any(ratio != ratios[0] for ratio in ratios):
            return {}
        self._tensors[f"{name}/scales"] = np.array(ratios[0], np.float32)
        return {"scales": Ref(f"{name}/scales"), "sizes": None, "axes": None}

    def _argument(self, name: str) -> Any:
        """An image or weights by name; sizes and the like as numbers, None where they are open."""
        if not name:
            return None
        if name in self._images:
            return Ref(name)
        arrays = self._trials.constants_of(name)
        if arrays is None or len({array.shape for array in arrays}) != 1:
            return Other("known at run time only")
        first = arrays[0]
        if first.dtype.kind != "f":
            if first.size > _MAX_NUMBERS:
                return Other(f"{first.size} integers")
            numbers = first.astype(object)
            for other in arrays[1:]:
                numbers[first != other] = None
            return numbers.tolist()
        if any(not np.array_equal(first, other) for other in arrays[1:]):
            return Other("known at run time only")
        if name not in self._tensors:
            with np.errstate(over="ignore"):  # becomes infinity, which is refused by Graph
                self._tensors[name] = np.asarray(first, np.float32)
        return Ref(name)


class _Trials:
    """A model with each dynamic dimension set to two values, to find results that depend on them.

    Holds the shapes of all tensors, and those that are constants, in each trial.
    """

    def __init__(
        self, graph: OnnxGraph, nodes: Sequence[OnnxNode], images: set[str], limits: Limits
    ) -> None:
        self._graph = graph
        self._limits = limits
        self._budget = Budget(limits.computed_bytes + 4 * graph.size, "computed_bytes")
        # Until then each constant is kept; those that an image needs, for ever.
        self._readers = Counter(
            name for node in nodes if not _is_computed(node, images) for name in node.reads
        )
        for node in nodes:
            if _is_computed(node, images):
                self._readers.update(dict.fromkeys(node.reads, len(nodes) + 1))
        first = self._open_sizes(2)
        self._count = 1 if first is None else 2
        shapes = [self._input_shapes(sizes or {}) for sizes in (first, self._open_sizes(3))]
        self._shapes: list[dict[str, Sizes]] = shapes[: self._count]
        self._constants: list[dict[str, npt.NDArray[Any]]] = [{} for _ in range(self._count)]
        for node in nodes:
            self._load(node)
            if _is_computed(node, images):
                self._infer(node)
            else:
                self._fold(node)

    @property
    def names(self) -> list[str]:
        """All tensors of known shape."""
        return list(self._shapes[0])

    def shapes_of(self, name: str) -> list[Sizes] | None:
        """The shape of a tensor in each trial, or None where it is unknown in one."""
        found = [shapes[name] for shapes in self._shapes if name in shapes]
        return found if len(found) == self._count else None

    def constants_of(self, name: str) -> list[npt.NDArray[Any]] | None:
        """A constant in each trial, or None where it is none in one."""
        found = [constants[name] for constants in self._constants if name in constants]
        return found if len(found) == self._count else None

    def resize_scales(self, node: OnnxNode) -> list[list[float]] | None:
        """The factors by which a node resizes each dimension, in each trial."""
        try:
            return [
                resize_scales(reads, reads.shape("X"))
                for reads in (self._reads(node, trial) for trial in range(self._count))
            ]
        except (KeyError, UnknownError, ModelError):
            return None

    def _open_sizes(self, step: int) -> dict[str, int] | None:
        """A size for each that is open. Networks often halve them, and want them to be large."""
        sizes: dict[str, int] = {}
        for info in self._graph.inputs:
            for place, size in enumerate(info.shape or ()):
                if not isinstance(size, int):
                    key = size or f"{info.name} {place}"
                    sizes.setdefault(key, 64 * (5 + step * (1 + len(sizes))))
        return sizes or None

    def _input_shapes(self, open_sizes: Mapping[str, int]) -> dict[str, Sizes]:
        return {
            info.name: tuple(
                size if isinstance(size, int) else open_sizes.get(size or f"{info.name} {place}", 1)
                for place, size in enumerate(info.shape or ())
            )
            for info in self._graph.inputs
        }

    def _load(self, node: OnnxNode) -> None:
        """Reads the stored constants of a node, when the first one needs them."""
        for name in node.reads:
            if name not in self._graph.tensors or name in self._constants[0]:
                continue
            array = self._graph.tensors[name]
            if array is not None:
                for shapes, constants in zip(self._shapes, self._constants, strict=True):
                    shapes[name], constants[name] = array.shape, array

    def _reads(self, node: OnnxNode, trial: int) -> Reads:
        return Reads(
            node.attributes,
            node.inputs,
            self._shapes[trial],
            self._constants[trial],
            len(node.outputs),
        )

    def _infer(self, node: OnnxNode) -> None:
        if not node.target.startswith("onnx."):
            return
        for name in _WINDOWS & node.attributes.keys():
            largest = max(map(abs, node.attributes[name]), default=0)
            self._limits.check("window", largest, f"{node.label}: {node.target}: {name}")
        for trial, shapes in enumerate(self._shapes):
            results = self._checked(node, trial, infer_shapes)
            for name, shape in zip(node.outputs, results, strict=False):
                self._limits.check("value_elements", math.prod(shape), node.label)
                shapes[name] = shape

    def _fold(self, node: OnnxNode) -> None:
        op = node.target.removeprefix("onnx.")
        if op in ("Shape", "Size"):
            for trial in range(self._count):
                self._keep(node, trial, self._shape_as_constant(node, op, trial))
            return
        names = [name for name in node.reads if name]
        if not is_foldable(op) or not all(name in c for c in self._constants for name in names):
            return
        arrays = [[constants[name] for name in names] for constants in self._constants]
        results: list[npt.NDArray[Any]] = []
        for trial, inputs in enumerate(arrays):
            if not trial or any(a is not b for a, b in zip(arrays[0], inputs, strict=True)):
                function = partial(fold, inputs=inputs, budget=self._budget)
                results = self._checked(node, trial, function)
            self._keep(node, trial, results)
        self._release(node)

    def _checked(
        self, node: OnnxNode, trial: int, function: Callable[[str, Reads], list[Any]]
    ) -> list[Any]:
        """What a function makes of a node; errors name the node."""
        try:
            return function(node.target.removeprefix("onnx."), self._reads(node, trial))
        except UnknownError:
            return []
        except ModelError as error:
            raise ModelError(f"{node.label}: {node.target}: {error}") from error
        except Exception as error:  # of arguments that no exporter writes
            raise ModelError(f"{node.label}: {node.target}: malformed: {error!r}") from error

    def _shape_as_constant(
        self, node: OnnxNode, op: str, trial: int
    ) -> list[npt.NDArray[np.int64]]:
        shape = self._shapes[trial].get(node.reads[0])
        if shape is None:
            return []
        if op == "Size":
            return [np.array(np.prod(shape, dtype=object), np.int64)]
        part = shape[node.attributes.get("start", 0) : node.attributes.get("end")]
        return [np.array(part, np.int64)]

    def _keep(self, node: OnnxNode, trial: int, results: Sequence[npt.NDArray[Any]]) -> None:
        for name, result in zip(node.outputs, results, strict=False):
            self._limits.check("rank", result.ndim, node.label)
            self._limits.check("dimension", max(result.shape, default=0), node.label)
            self._shapes[trial][name], self._constants[trial][name] = result.shape, result

    def _release(self, node: OnnxNode) -> None:
        """Drops the computed constants that nothing reads any more."""
        for name in node.reads:
            self._readers[name] -= 1
            if self._readers[name] == 0 and name not in self._graph.tensors:
                dropped = [constants.pop(name, None) for constants in self._constants]
                for array in {id(array): array for array in dropped if array is not None}.values():
                    self._budget.release(array)


def _is_computed(node: OnnxNode, images: set[str]) -> bool:
    """Whether a node computes something from an image, not only from its size.

    A graph in an attribute may read any value.
    """
    if node.target in ("onnx.Shape", "onnx.Size"):
        return False
    graphs = (v.is_graph for v in node.attributes.values() if isinstance(v, Unread))
    return not images.isdisjoint(node.reads) or any(graphs)


def _needed(nodes: Sequence[OnnxNode], outputs: Sequence[str]) -> list[OnnxNode]:
    """The nodes on which outputs depend."""
    needed = set(outputs)
    kept = []
    for node in reversed(nodes):
        if not needed.isdisjoint(node.outputs):
            kept.append(node)
            needed.update(node.reads)
    return kept[::-1]


def _integer_problems(nodes: Sequence[OnnxNode], images: set[str]) -> list[str]:
    """Where integers that are computed from an image are read as if they were floats."""
    integers: set[str] = set()
    problems = []
    for node in nodes:
        read = not integers.isdisjoint(node.reads)
        if node.target == "onnx.ArgMax" or (read and node.target in _MOVES - {"onnx.Cast"}):
            integers.update(node.outputs)
        elif read and node.target not in _MOVES and _is_computed(node, images):
            problems.append(
                f"{node.label}: {node.target} of integers; closest supported form: a Cast to "
                "FLOAT before it"
            )
    return problems
