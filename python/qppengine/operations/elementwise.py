# SPDX-License-Identifier: Apache-2.0
"""Operations on single elements: unary activations, and add, sub and mul of two inputs.

The second input of add, sub and mul has the shape of the first or is ``[N, C, 1, 1]``.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from qppengine.errors import ShapeError, UnsupportedError
from qppengine.ir import channels_of
from qppengine.operations.activation import (
    BINARY_ACTIVATIONS,
    activate,
    activation_attributes,
    check_activation,
    export_activation,
)
from qppengine.operations.attributes import NUMBER, POSITIVE, Attribute
from qppengine.operations.schema import Export, OpSchema, by_channel, expect_length
from qppengine.operations.windows import merge_shapes, shapes_match

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from qppengine.ir import Array, Node, Shape
    from qppengine.operations.onnx_context import OnnxContext


# ------------------------------------------------------------------------------ unary activations


def _unary(
    name: str, function: Callable[..., Any], export: Export | str, **attributes: Attribute
) -> OpSchema:
    """An operation that computes ``function(x, **attributes)``."""

    def compute(node: Node, x: Array) -> Array:
        with np.errstate(all="ignore"):  # infinity and NaN are results, too
            return np.asarray(function(x, **node.attributes), np.float32)

    return OpSchema(name=name, compute=compute, export=export, attributes=attributes)


def _sigmoid(x: Array) -> Array:
    return np.asarray(np.tanh(x / 2) / 2 + 0.5)


def _hardsigmoid(x: Array) -> Array:
    return np.clip(x / 6 + 0.5, 0, 1)


def _export_silu(context: OnnxContext) -> None:
    context.add("Mul", *context.inputs, context.add("Sigmoid", *context.inputs))


def _export_hardsigmoid(context: OnnxContext) -> None:
    context.add("HardSigmoid", *context.inputs, alpha=1 / 6, beta=0.5)


def _erf(x: Array) -> Array:
    return np.asarray(np.vectorize(math.erf, otypes=[np.float64])(x))


def _softplus(x: Array, beta: float = 1, threshold: float = math.inf) -> Array:
    return np.where(beta * x > threshold, x, np.logaddexp(0, beta * x) / beta)


def _export_softplus(context: OnnxContext) -> None:
    beta, threshold = (context.node.attributes[key] for key in ("beta", "threshold"))
    if threshold < _MIN_SOFTPLUS_THRESHOLD:
        raise UnsupportedError(
            f"{context.node.name}: ONNX has no softplus with threshold {threshold}",
            closest=f"a threshold of at least {_MIN_SOFTPLUS_THRESHOLD}",
        )
    if beta == 1:
        context.add("Softplus", *context.inputs)
        return
    gain = context.constant("beta", np.float32(beta))
    scaled = context.add("Softplus", context.add("Mul", *context.inputs, gain))
    context.add("Div", scaled, gain)


def _export_pow(context: OnnxContext) -> None:
    exponent = context.constant("exponent", np.float32(context.node.attributes["exponent"]))
    context.add("Pow", *context.inputs, exponent)


_MIN_SOFTPLUS_THRESHOLD = 12  # from here on softplus(x) is x in fp16
_GELU_GAIN = math.sqrt(2 / math.pi)

# The same operation, without attributes, is in ATen by this name and, where its export is a name,
# in ONNX by that one.
UNARY = (
    _unary("sigmoid", _sigmoid, "Sigmoid"),
    _unary("silu", lambda x: x * _sigmoid(x), _export_silu),
    _unary("hardsigmoid", _hardsigmoid, _export_hardsigmoid),
    _unary("hardswish", lambda x: x * _hardsigmoid(x), "HardSwish"),
    _unary("abs", np.abs, "Abs"),
    _unary("neg", np.negative, "Neg"),
    _unary("exp", np.exp, "Exp"),
    _unary("sqrt", np.sqrt, "Sqrt"),
    _unary("erf", _erf, "Erf"),
    _unary("mish", lambda x: x * np.tanh(_softplus(x)), "Mish"),
)

# The name of each operator of ONNX that is one of these operations.
ONNX_UNARY = {schema.export: schema.name for schema in UNARY if isinstance(schema.export, str)}

# Those with options in ATen or ONNX; attributes are numbers.
_UNARY_WITH_OPTIONS = (
    _unary(
        "elu",
        lambda x, alpha: np.where(x > 0, x, alpha * np.expm1(x)),
        lambda context: context.add("Elu", *context.inputs, **context.node.attributes),
        alpha=NUMBER,
    ),
    _unary(
        "gelu",
        lambda x: x * (1 + _erf(x / math.sqrt(2))) / 2,
        lambda context: context.add("Gelu", *context.inputs, approximate="none"),
    ),
    _unary(
        "gelu_tanh",
        lambda x: x * (1 + np.tanh(_GELU_GAIN * (x + 0.044715 * x**3))) / 2,
        lambda context: context.add("Gelu", *context.inputs, approximate="tanh"),
    ),
    _unary("pow", lambda x, exponent: np.power(x, exponent), _export_pow, exponent=NUMBER),
    _unary("softplus", _softplus, _export_softplus, beta=POSITIVE, threshold=NUMBER),
)

UNARY_ACTIVATIONS = tuple(schema.name for schema in (*UNARY, *_UNARY_WITH_OPTIONS))


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
    *UNARY,
    *_UNARY_WITH_OPTIONS,
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
