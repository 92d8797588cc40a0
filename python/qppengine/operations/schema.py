# SPDX-License-Identifier: Apache-2.0
"""The definition of an operation, and the parts that all operations share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from qppengine.errors import ShapeError
from qppengine.ir import Array, Node, Shape
from qppengine.operations.onnx_context import OnnxContext

if TYPE_CHECKING:
    from qppengine.operations.attributes import Attribute

Compute: TypeAlias = Callable[..., Array]  # (node, *inputs)
ComputeInt8: TypeAlias = Callable[..., Array]  # (node, qparams, *inputs)
Check: TypeAlias = Callable[[Node], Iterator[str]]
InferShape: TypeAlias = Callable[[Node, Sequence[Shape]], Shape]
Export: TypeAlias = Callable[[OnnxContext], object]
Simplify: TypeAlias = Callable[[Node], Node]


def no_problems(node: Node) -> Iterator[str]:
    """The check of an operation whose attributes do not depend on each other."""
    yield from ()


def same_shape(node: Node, shapes: Sequence[Shape]) -> Shape:
    """The shape of the first input."""
    return shapes[0]


def unchanged(node: Node) -> Node:
    """The node of an operation that has no simpler form."""
    return node


@dataclass(frozen=True)
class SourceOperator:
    """An operator of PyTorch or ONNX that computes the same as an operation of one input.

    Attributes:
        target: The operator, such as "aten.elu.default" or "onnx.Elu".
        defaults: Values of the arguments that a call may omit.
        requires: Arguments that must have these values.
        arguments: Names of the arguments that hold attributes, where they differ.
    """

    target: str
    defaults: Mapping[str, Any] = field(default_factory=dict)
    requires: Mapping[str, Any] = field(default_factory=dict)
    arguments: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class OpSchema:
    """One operation: its attributes and tensors, its computation, and its form in ONNX.

    Attributes:
        name: The name in graphs and model files.
        compute: ``compute(node, *inputs)`` returns the output in float32, with NumPy.
        export: Adds the ONNX nodes that compute the same, or the name of an ONNX operator that
            takes the same inputs and no attributes; None where passes replace the operation.
        attributes: Attributes of a node, with their types.
        tensors: Number of dimensions of each tensor.
        optional: Names of attributes and tensors that a node need not have.
        inputs: Number of inputs; None for one or more.
        optional_inputs: Number of inputs that may follow these.
        check: Yields problems of attributes that depend on each other. Each alone is valid.
        infer_shape: Shape of the output for those of the inputs. Raises `ShapeError`.
        compute_int8: ``compute_int8(node, qparams, *inputs)``, for an operation that computes with
            integers: the first input holds multiples of the step in `qparams`.
        sources: Operators of PyTorch and ONNX that importers map to this operation.
        simplify: Returns an equivalent node that costs less, or the node itself.
    """

    name: str
    compute: Compute
    export: Export | str | None
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    tensors: Mapping[str, int] = field(default_factory=dict)
    optional: frozenset[str] = frozenset()
    inputs: int | None = 1
    optional_inputs: int = 0
    check: Check = no_problems
    infer_shape: InferShape = same_shape
    compute_int8: ComputeInt8 | None = None
    sources: tuple[SourceOperator, ...] = ()
    simplify: Simplify = unchanged

    def problems(self, node: Node) -> Iterator[str]:
        """Everything that is wrong with a node by itself, whatever its inputs are."""
        yield from self._input_problems(node)
        wrong = list(self._attribute_problems(node))
        yield from wrong or self.check(node)
        yield from self._tensor_problems(node)

    def _input_problems(self, node: Node) -> Iterator[str]:
        count = len(node.inputs)
        if self.inputs is None:
            if count == 0:
                yield f"{self.name} takes 1 input or more, got 0"
            return
        maximum = self.inputs + self.optional_inputs
        if not self.inputs <= count <= maximum:
            expected = f"{self.inputs} or {maximum}" if self.optional_inputs else str(maximum)
            yield f"{self.name} takes {expected} input{'s' * (maximum > 1)}, got {count}"

    def _attribute_problems(self, node: Node) -> Iterator[str]:
        for name in sorted(node.attributes.keys() - self.attributes.keys()):
            yield f"{self.name} has no attribute {name!r}"
        for name, (expected, accepts) in self.attributes.items():
            if name not in node.attributes:
                if name not in self.optional:
                    yield f"attribute {name!r} is missing"
            elif not accepts(node.attributes[name]):
                yield f"attribute {name!r} must be {expected}, got {node.attributes[name]!r}"

    def _tensor_problems(self, node: Node) -> Iterator[str]:
        for name in sorted(node.tensors.keys() - self.tensors.keys()):
            yield f"{self.name} has no tensor {name!r}"
        for name, rank in self.tensors.items():
            if name not in node.tensors:
                if name not in self.optional:
                    yield f"tensor {name!r} is missing"
                continue
            tensor = node.tensors[name]
            if tensor.dtype != np.float32:
                yield f"tensor {name!r} must be float32, got {tensor.dtype}"
            elif not np.isfinite(tensor).all():
                yield f"tensor {name!r} holds NaN or infinity"
            if tensor.ndim != rank or tensor.size == 0:
                yield f"tensor {name!r} must have {rank} dimensions >= 1, got {list(tensor.shape)}"

    def fuse_activation(self, node: Node, activation: Mapping[str, Any]) -> Node | None:
        """The node with these attributes of an activation, or None if it cannot apply that."""
        if not activation.keys() <= self.attributes.keys():
            return None
        fused = replace(node, attributes={**node.attributes, **activation})
        problems = (*self._attribute_problems(fused), *self.check(fused))
        return None if problems else fused

    def write_onnx(self, context: OnnxContext) -> None:
        """Adds the ONNX nodes of a node; its output is that of the last one."""
        assert self.export is not None
        if isinstance(self.export, str):
            context.add(self.export, *context.inputs)
        else:
            self.export(context)


def expect_length(node: Node, tensor: str, length: int) -> None:
    """Raises `ShapeError` for a vector of another length; a tensor may be absent."""
    if tensor in node.tensors and len(node.tensors[tensor]) != length:
        raise ShapeError(
            f"{node.name}: expected {tensor} of length {length}, got {len(node.tensors[tensor])}"
        )


def by_channel(node: Node, tensor: str) -> Array:
    """A vector of a node as ``[1, C, 1, 1]``; zero where it is absent."""
    return np.reshape(node.tensors.get(tensor, np.zeros(1, np.float32)), (1, -1, 1, 1))
