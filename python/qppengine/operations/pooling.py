# SPDX-License-Identifier: Apache-2.0
"""Pools over windows of a size, or over as many windows as the output has pixels."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from qppengine.errors import UnsupportedError
from qppengine.ir import sides
from qppengine.operations.attributes import FLAG, PADDING, integer, pair
from qppengine.operations.schema import OpSchema
from qppengine.operations.windows import effective_kernel, infer_windows

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from qppengine.ir import Array, Node, Shape
    from qppengine.operations.onnx_context import OnnxContext

_ATTRIBUTES = {"kernel": pair(1), "stride": pair(1), "padding": PADDING, "ceil_mode": FLAG}


def _check(node: Node) -> Iterator[str]:
    kernel, padding = node.attributes["kernel"], sides(node.attributes["padding"])
    if any(2 * side > kernel[i % 2] for i, side in enumerate(padding)):
        yield "attribute 'padding' must be at most half the kernel"


def _infer_shape(node: Node, shapes: Sequence[Shape]) -> Shape:
    kernel = effective_kernel(node, node.attributes["kernel"])
    return (*shapes[0][:2], *infer_windows(node, shapes[0][2:], kernel))


def _infer_adaptive(node: Node, shapes: Sequence[Shape]) -> Shape:
    return (*shapes[0][:2], *node.attributes.get("size", (1, 1)))


def _compute(node: Node, x: Array) -> Array:
    """Maxima or means of windows, one window after another."""
    _, _, rows, columns = x.shape
    tops, lefts = _windows(node, rows, 0), _windows(node, columns, 1)
    y = np.empty((*x.shape[:2], len(tops), len(lefts)), np.float32)
    for i, window_rows in enumerate(tops):
        for j, window_columns in enumerate(lefts):
            inside = [n for n in window_rows if 0 <= n < rows]
            window = x[:, :, inside][..., [n for n in window_columns if 0 <= n < columns]]
            if "max" in node.op:
                y[:, :, i, j] = window.max(axis=(2, 3))
                continue
            counts = node.attributes.get("count_include_pad")
            count = len(window_rows) * len(window_columns)
            count = count if counts else window.shape[2] * window.shape[3]
            count = node.attributes.get("divisor", count)
            y[:, :, i, j] = window.sum(axis=(2, 3)) / np.float32(count)
    return y


def _windows(node: Node, size: int, axis: int) -> list[range]:
    """The rows or columns in each window, some possibly in the padding."""
    if "size" in node.attributes:
        count = node.attributes["size"][axis]
        return [range(i * size // count, -(-(i + 1) * size // count)) for i in range(count)]
    stride = node.attributes["stride"][axis]
    step = node.attributes.get("dilation", (1, 1))[axis]
    padding = sides(node.attributes["padding"])
    before, end = padding[axis], size + padding[axis + 2]
    extent = effective_kernel(node, node.attributes["kernel"])[axis]
    ceil_mode = node.attributes["ceil_mode"]
    firsts = range(-before, size if ceil_mode else end, stride)
    last = end + stride - 1 if ceil_mode else end
    return [
        range(first, min(first + extent, end), step) for first in firsts if first + extent <= last
    ]


def _compute_global(node: Node, x: Array) -> Array:
    return np.asarray(x.mean(axis=(2, 3), keepdims=True, dtype=np.float64), np.float32)


def _export_max(context: OnnxContext) -> None:
    dilation = context.node.attributes.get("dilation", (1, 1))
    context.add("MaxPool", *context.inputs, dilations=dilation, **_onnx_window(context.node))


def _export_average(context: OnnxContext) -> None:
    attributes = context.node.attributes
    divisor = attributes.get("divisor")
    window = _onnx_window(context.node)
    if divisor is not None and attributes["ceil_mode"]:
        raise UnsupportedError(f"{context.node.name}: ONNX has no divisor in ceil_mode")
    includes = divisor is not None or attributes["count_include_pad"]
    counts = int(includes and any(window["pads"]))
    gain = 1.0 if divisor is None else math.prod(attributes["kernel"]) / divisor
    values = list(context.inputs)
    if context.input_scale is not None and attributes["ceil_mode"] and counts:
        # ONNX Runtime's int8 pool divides by the whole window where ceil_mode cuts it. Powers of
        # two before and after the pool change no number and keep it in float32.
        half = context.constant("half", np.float32(0.5))
        values = [context.add("Mul", *context.inputs, half, key="halved")]
        gain = 2.0
    mean = context.add("AveragePool", *values, count_include_pad=counts, **window)
    if gain != 1:
        context.add("Mul", mean, context.constant("gain", np.float32(gain)))


def _export_adaptive(context: OnnxContext) -> None:
    maximum, target = "max" in context.node.op, context.node.attributes["size"]
    if tuple(target) == (1, 1):
        context.add("GlobalMaxPool" if maximum else "GlobalAveragePool", *context.inputs)
        return
    size = context.input_shape[2:]
    if any(n is None or n % m for n, m in zip(size, target, strict=True)):
        raise UnsupportedError(
            f"{context.node.name}: ONNX has no windows of several or of unknown sizes",
            closest="an image of known size that is a multiple of the output's",
        )
    kernel = [(n or 0) // m for n, m in zip(size, target, strict=True)]
    pool = "MaxPool" if maximum else "AveragePool"
    context.add(pool, *context.inputs, kernel_shape=kernel, strides=kernel)


def _onnx_window(node: Node) -> dict[str, Any]:
    return {
        "kernel_shape": node.attributes["kernel"],
        "strides": node.attributes["stride"],
        "pads": sides(node.attributes["padding"]),
        "ceil_mode": int(node.attributes["ceil_mode"]),
    }


OPERATIONS = (
    *(
        OpSchema(
            name=name,
            compute=_compute,
            export=export,
            attributes={**_ATTRIBUTES, **attributes},
            optional=frozenset({"dilation", "divisor"}),
            check=_check,
            infer_shape=_infer_shape,
        )
        for name, export, attributes in (
            ("max_pool2d", _export_max, {"dilation": pair(1)}),
            ("avg_pool2d", _export_average, {"count_include_pad": FLAG, "divisor": integer(1)}),
        )
    ),
    OpSchema(
        name="global_avg_pool",
        compute=_compute_global,
        export="GlobalAveragePool",
        infer_shape=_infer_adaptive,
    ),
    *(
        OpSchema(
            name=name,
            compute=_compute,
            export=_export_adaptive,
            attributes={"size": pair(1)},
            infer_shape=_infer_adaptive,
        )
        for name in ("adaptive_avg_pool2d", "adaptive_max_pool2d")
    ),
)
