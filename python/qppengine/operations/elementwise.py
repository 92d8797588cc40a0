# SPDX-License-Identifier: Apache-2.0
"""Operations on single elements: unary activations, and add, sub and mul of two inputs.

The second input of add, sub and mul has the shape of the first or is ``[N, C, 1, 1]``.
"""

from __future__ import annotations

import math
from dataclasses import replace
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
from qppengine.operations.schema import (
    Export,
    OpSchema,
    Simplify,
    SourceOperator,
    by_channel,
    expect_length,
    unchanged,
)
from qppengine.operations.windows import merge_shapes, shapes_match

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from qppengine.ir import Array, Node, Shape
    from qppengine.operations.onnx_context import OnnxContext


# ------------------------------------------------------------------------------ unary activations


def _unary(
    name: str,
    function: Callable[..., Any],
    *sources: SourceOperator | str,
    attributes: Mapping[str, Attribute] | None = None,
    export: Export | None = None,
    simplify: Simplify = unchanged,
) -> OpSchema:
    """An operation that computes ``function(x, **attributes)``.

    Its export is the operator of ONNX among the sources, if no other is given.
    """

    def compute(node: Node, x: Array) -> Array:
        with np.errstate(all="ignore"):  # infinity and NaN are results, too
            return np.asarray(function(x, **node.attributes), np.float32)

    operators = tuple(
        SourceOperator(source) if isinstance(source, str) else source for source in sources
    )
    return OpSchema(
        name=name,
        compute=compute,
        export=export or partial(_export_source, operators[-1]),
        attributes=attributes or {},
        sources=operators,
        simplify=simplify,
    )


def _export_source(source: SourceOperator, context: OnnxContext) -> None:
    operator = source.target.removeprefix("onnx.")
    context.add(operator, *context.inputs, **source.requires, **context.node.attributes)


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


def _simplify_pow(node: Node) -> Node:
    exponent = node.attributes["exponent"]
    if exponent == 0:
        attributes = {"activation": "clamp", "clamp": (1, 1)}
        return replace(node, op="activation", attributes=attributes)
    if exponent == 0.5:
        return replace(node, op="sqrt", attributes={})
    if exponent == 1:
        return replace(node, op="activation", attributes={"activation": "none"})
    if exponent == 2:
        return replace(
            node, op="mul", inputs=(*node.inputs, *node.inputs), attributes={"activation": "none"}
        )
    return node


_MIN_SOFTPLUS_THRESHOLD = 12  # from here on softplus(x) is x in fp16
_GELU_GAIN = math.sqrt(2 / math.pi)

_GELU = {"approximate": "none"}  # the default
_GELU_TANH = {"approximate": "tanh"}

UNARY = (
    _unary("sigmoid", _sigmoid, "aten.sigmoid.default", "onnx.Sigmoid"),
    _unary("silu", lambda x: x * _sigmoid(x), "aten.silu.default", export=_export_silu),
    _unary("hardsigmoid", _hardsigmoid, "aten.hardsigmoid.default", export=_export_hardsigmoid),
    _unary("hardswish", lambda x: x * _hardsigmoid(x), "aten.hardswish.default", "onnx.HardSwish"),
    _unary("abs", np.abs, "aten.abs.default", "onnx.Abs"),
    _unary("neg", np.negative, "aten.neg.default", "onnx.Neg"),
    _unary("exp", np.exp, "aten.exp.default", "onnx.Exp"),
    _unary("sqrt", np.sqrt, "aten.sqrt.default", "onnx.Sqrt"),
    _unary("erf", _erf, "aten.erf.default", "onnx.Erf"),
    _unary("mish", lambda x: x * np.tanh(_softplus(x)), "aten.mish.default", "onnx.Mish"),
    _unary(
        "elu",
        lambda x, alpha: np.where(x > 0, x, alpha * np.expm1(x)),
        SourceOperator(
            "aten.elu.default",
            defaults={"alpha": 1, "scale": 1, "input_scale": 1},
            requires={"scale": 1, "input_scale": 1},
        ),
        "onnx.Elu",
        attributes={"alpha": NUMBER},
    ),
    _unary(
        "celu",
        lambda x, alpha: np.where(x > 0, x, alpha * np.expm1(x / alpha)),
        SourceOperator("aten.celu.default", defaults={"alpha": 1}),
        "onnx.Celu",
        attributes={"alpha": POSITIVE},
    ),
    _unary(
        "gelu",
        lambda x: x * (1 + _erf(x / math.sqrt(2))) / 2,
        SourceOperator("aten.gelu.default", defaults=_GELU, requires=_GELU),
        SourceOperator("onnx.Gelu", requires=_GELU),
    ),
    _unary(
        "gelu_tanh",
        lambda x: x * (1 + np.tanh(_GELU_GAIN * (x + 0.044715 * x**3))) / 2,
        SourceOperator("aten.gelu.default", defaults=_GELU, requires=_GELU_TANH),
        SourceOperator("onnx.Gelu", requires=_GELU_TANH),
    ),
    _unary(
        "pow",
        lambda x, exponent: np.power(x, exponent),
        "aten.pow.Tensor_Scalar",
        SourceOperator("onnx.Pow", arguments={"exponent": "Y"}),
        attributes={"exponent": NUMBER},
        export=_export_pow,
        simplify=_simplify_pow,
    ),
    _unary(
        "softplus",
        _softplus,
        SourceOperator("aten.softplus.default", defaults={"beta": 1, "threshold": 20}),
        SourceOperator("onnx.Softplus", defaults={"beta": 1, "threshold": 20}),
        attributes={"beta": POSITIVE, "threshold": NUMBER},
        export=_export_softplus,
    ),
)


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
