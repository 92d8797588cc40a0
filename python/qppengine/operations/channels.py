# SPDX-License-Identifier: Apache-2.0
"""Operations over the channels of a pixel, and normalization of each channel.

``softmax``, ``log_softmax`` and ``argmax`` go over the channels; the last makes ``[N, 1, H, W]`` of
indices. ``batch_norm`` computes ``(x - mean) / sqrt(var + eps) * weight + bias``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from qppengine.errors import ShapeError
from qppengine.ir import channels_of
from qppengine.operations.attributes import Attribute, is_number
from qppengine.operations.schema import OpSchema, by_channel, expect_length

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qppengine.ir import Array, Node, Shape
    from qppengine.operations.onnx_context import OnnxContext

MAX_CLASSES = 2048  # fp16 holds integers up to this one exactly

_BATCH_NORM = ("weight", "bias", "mean", "var")


def _infer_batch_norm(node: Node, shapes: Sequence[Shape]) -> Shape:
    for name in _BATCH_NORM:
        expect_length(node, name, channels_of(shapes[0]))
    return shapes[0]


def _compute_batch_norm(node: Node, x: Array) -> Array:
    weight, bias, mean, var = (by_channel(node, key) for key in _BATCH_NORM)
    gain = weight / np.sqrt(var + np.float32(node.attributes["eps"]))
    return np.asarray((x - mean) * gain + bias, np.float32)


def _log_softmax(x: Array) -> Array:
    shifted = x - x.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)), np.float32)


def _infer_argmax(node: Node, shapes: Sequence[Shape]) -> Shape:
    batch, channels, *size = shapes[0]
    if channels_of(shapes[0]) > MAX_CLASSES:
        raise ShapeError(
            f"{node.name}: indices are fp16 numbers, exact up to {MAX_CLASSES}; "
            f"{node.inputs[0]!r} has {channels} channels"
        )
    return (batch, 1, *size)


def _export_argmax(context: OnnxContext) -> None:
    context.add("Cast", context.add("ArgMax", *context.inputs, axis=1, keepdims=1), to=1)  # FLOAT


OPERATIONS = (
    OpSchema(
        name="batch_norm",
        compute=_compute_batch_norm,
        export=None,  # `passes.optimize` turns it into a convolution
        attributes={
            "eps": Attribute("a number of at least 0", lambda eps: is_number(eps) and eps >= 0)
        },
        tensors=dict.fromkeys(_BATCH_NORM, 1),
        infer_shape=_infer_batch_norm,
    ),
    OpSchema(
        name="softmax",
        compute=lambda node, x: np.exp(_log_softmax(x)),
        export=lambda context: context.add("Softmax", *context.inputs, axis=1),
    ),
    OpSchema(
        name="log_softmax",
        compute=lambda node, x: _log_softmax(x),
        export=lambda context: context.add("LogSoftmax", *context.inputs, axis=1),
    ),
    OpSchema(
        name="argmax",
        compute=lambda node, x: np.asarray(x.argmax(axis=1)[:, None], np.float32),
        export=_export_argmax,
        infer_shape=_infer_argmax,
    ),
)
