# SPDX-License-Identifier: Apache-2.0
"""Operations on single elements: unary activations, and add, sub and mul of two inputs.

The second input of add, sub and mul has the shape of the first or is ``[N, C, 1, 1]``.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from qppengine.errors import ShapeError
from qppengine.ir import channels_of
from qppengine.operations.activation import (
    BINARY_ACTIVATIONS,
    activate,
    activation_attributes,
    check_activation,
    export_activation,
)
from qppengine.operations.schema import OpSchema, by_channel, expect_length
from qppengine.operations.windows import merge_shapes, shapes_match

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from qppengine.ir import Array, Node, Shape
    from qppengine.operations.onnx_context import OnnxContext


# ------------------------------------------------------------------------------ unary activations


def _unary(name: str, function: Callable[[Array], Any], export: Any) -> OpSchema:
    """An operation with one input and no attributes, of the name that ATen's has."""
    return OpSchema(
        name=name, compute=lambda node, x: np.asarray(function(x), np.float32), export=export
    )


def _sigmoid(x: Array) -> Array:
    return np.asarray(np.tanh(x / 2) / 2 + 0.5)


def _hardsigmoid(x: Array) -> Array:
    return np.clip(x / 6 + 0.5, 0, 1)


def _export_silu(context: OnnxContext) -> None:
    context.add("Mul", *context.inputs, context.add("Sigmoid", *context.inputs))


def _export_hardsigmoid(context: OnnxContext) -> None:
    context.add("HardSigmoid", *context.inputs, alpha=1 / 6, beta=0.5)


_UNARY = (
    _unary("sigmoid", _sigmoid, "Sigmoid"),
    _unary("silu", lambda x: x * _sigmoid(x), _export_silu),
    _unary("hardsigmoid", _hardsigmoid, _export_hardsigmoid),
    _unary("hardswish", lambda x: x * _hardsigmoid(x), "HardSwish"),
)

UNARY_ACTIVATIONS = tuple(schema.name for schema in _UNARY)


# ------------------------------------------------------------------------------- parametric ReLU


def _infer_prelu(node: Node, shapes: Sequence[Shape]) -> Shape:
    if len(node.tensors["weight"]) != 1:
        expect_length(node, "weight", channels_of(shapes[0]))
    return shapes[0]


def _compute_prelu(node: Node, x: Array) -> Array:
    slope = by_channel(node, "weight")
    return np.asarray(np.maximum(x, 0) + slope * np.minimum(x, 0), np.float32)


def _export_prelu(context: OnnxContext) -> None:
    slope = context.constant("slope", context.node.tensors["weight"][:, None, None])
    context.add("PRelu", *context.inputs, slope)


# ------------------------------------------------------------------------------------- two inputs


def _infer_binary(node: Node, shapes: Sequence[Shape]) -> Shape:
    """The common shape; unknown sizes become those of the other input."""
    first, second = shapes
    if shapes_match(second, (*first[:2], 1, 1)) and second[2:] == (1, 1):
        return first
    if shapes_match(first, second):
        return merge_shapes(first, second)
    raise ShapeError(
        f"{node.name}: expected two inputs of one shape, or the second [N, C, 1, 1], "
        f"{node.inputs[0]!r} has {list(first)} and {node.inputs[1]!r} {list(second)}"
    )


def _compute_binary(function: Callable[..., Any], node: Node, x: Array, y: Array) -> Array:
    return activate(np.asarray(function(x, y), np.float32), node.attributes)


def _export_binary(context: OnnxContext) -> None:
    export_activation(context, context.add(context.node.op.capitalize(), *context.inputs))


_BINARY = {"add": np.add, "sub": np.subtract, "mul": np.multiply}

OPERATIONS = (
    *_UNARY,
    OpSchema(
        name="prelu",
        compute=_compute_prelu,
        export=_export_prelu,
        tensors={"weight": 1},
        infer_shape=_infer_prelu,
    ),
    *(
        OpSchema(
            name=name,
            compute=partial(_compute_binary, function),
            export=_export_binary,
            attributes=activation_attributes(*BINARY_ACTIVATIONS),
            optional=frozenset({"clamp"}),
            inputs=2,
            check=check_activation,
            infer_shape=_infer_binary,
        )
        for name, function in _BINARY.items()
    ),
)
