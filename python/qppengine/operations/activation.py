# SPDX-License-Identifier: Apache-2.0
"""The activation that convolutions and binary operations apply to their output.

Its attributes are ``activation``, "none", "relu", "tanh" or "clamp", and for the last ``clamp``:
``[lo, hi]``. The operation ``activation`` is the same on its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from qppengine.operations.attributes import INTERVAL, Attribute, choice
from qppengine.operations.schema import OpSchema

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from qppengine.ir import Array, Node
    from qppengine.operations.onnx_context import OnnxContext

ACTIVATIONS = ("none", "relu", "tanh", "clamp")
# Of operations with two inputs.
BINARY_ACTIVATIONS = ("none", "relu", "clamp")


def activation_attributes(*names: str) -> dict[str, Attribute]:
    """The attributes of an operation that applies one of these activations."""
    return {"activation": choice(*names), "clamp": INTERVAL}


def check_activation(node: Node) -> Iterator[str]:
    """The bounds of a clamp are given exactly where there is one."""
    if (node.attributes["activation"] == "clamp") != ("clamp" in node.attributes):
        yield "attribute 'clamp' belongs to activation 'clamp', and to no other"


def activate(x: Array, attributes: Mapping[str, Any]) -> Array:
    """Applies the activation of a node."""
    activation = attributes["activation"]
    if activation == "relu":
        return np.asarray(np.maximum(x, np.float32(0)))
    if activation == "tanh":
        return np.asarray(np.tanh(x))
    if activation == "clamp":
        lo, hi = attributes["clamp"]
        return np.clip(x, np.float32(lo), np.float32(hi))
    return x


def export_activation(context: OnnxContext, tensor: str) -> None:
    """Adds the activation that an operation applies to its output, if there is one."""
    activation = context.node.attributes["activation"]
    if activation == "clamp":
        bounds = zip(("lo", "hi"), context.node.attributes["clamp"], strict=True)
        context.add("Clip", tensor, *(context.constant(key, np.float32(n)) for key, n in bounds))
    elif activation != "none":
        context.add(activation.capitalize(), tensor)


def _export(context: OnnxContext) -> None:
    if context.node.attributes["activation"] == "none":
        context.add("Identity", *context.inputs)
    export_activation(context, context.inputs[0])


OPERATIONS = (
    OpSchema(
        name="activation",
        compute=lambda node, x: activate(x, node.attributes),
        export=_export,
        attributes=activation_attributes(*ACTIVATIONS),
        optional=frozenset({"clamp"}),
        check=check_activation,
    ),
)
