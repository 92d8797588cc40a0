# SPDX-License-Identifier: Apache-2.0
"""Convolutions.

``conv2d`` has a weight ``[O, I / groups, kH, kW]``, ``conv_transpose2d`` one of
``[I, O / groups, kH, kW]``; both may have a bias ``[O]``. A conv2d of one group may take a second
input of the output's shape, its residual, which is added before the activation; it then has no
"tanh".
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from qppengine.errors import ShapeError
from qppengine.ir import sides
from qppengine.operations.activation import (
    ACTIVATIONS,
    BINARY_ACTIVATIONS,
    activate,
    activation_attributes,
    check_activation,
    export_activation,
)
from qppengine.operations.attributes import PADDING, choice, integer, pair
from qppengine.operations.schema import OpSchema, by_channel, expect_length
from qppengine.operations.windows import effective_kernel, infer_windows, merge_shapes, shapes_match
from qppengine.qparams import quantize_weight

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from qppengine.ir import Array, Node, Shape
    from qppengine.operations.onnx_context import OnnxContext
    from qppengine.qparams import QParams

_Float = TypeVar("_Float", np.float32, np.float64)

_ATTRIBUTES = {
    "stride": pair(1),
    "dilation": pair(1),
    "groups": integer(1),
    **activation_attributes(*ACTIVATIONS),
}
_TENSORS = {"weight": 4, "bias": 1}
_OPTIONAL = frozenset({"bias", "clamp", "groups"})
# What int8 runs use instead of weight and bias: levels from -127 to 127, their unit by filter.
_INT8_TENSORS = {"int8_weight": 4, "int8_scale": 1, "int8_bias": 1}

_INT32_MAX = 2**31 - 1
_MAX_PRODUCT = 255  # of an activation less its zero point


# ------------------------------------------------------------------------------------ convolution


def _check_conv2d(node: Node) -> Iterator[str]:
    if len(node.inputs) > 1:
        if node.attributes.get("groups", 1) != 1:
            yield "a residual belongs to a convolution of one group"
        activation = choice(*BINARY_ACTIVATIONS)
        if not activation.accepts(node.attributes["activation"]):
            yield f"activation with a residual must be {activation.expected}"
    yield from check_activation(node)
    yield from _int8_problems(node)


def _int8_problems(node: Node) -> Iterator[str]:
    present = _INT8_TENSORS.keys() & node.tensors.keys()
    if present and len(present) < len(_INT8_TENSORS):
        expected, got = ", ".join(_INT8_TENSORS), ", ".join(sorted(present))
        yield f"expected all or none of the tensors {expected}, got {got}"
    if "int8_weight" in present:
        levels = node.tensors["int8_weight"]
        if not ((np.abs(levels) <= 127) & (levels == np.rint(levels))).all():
            yield "int8_weight must hold whole numbers from -127 to 127"
    if "int8_scale" in present and not (node.tensors["int8_scale"] > 0).all():
        yield "int8_scale must be above 0"


def _infer_conv2d(node: Node, shapes: Sequence[Shape]) -> Shape:
    batch, channels, *size = shapes[0]
    filters, in_channels_per_group, *kernel = node.tensors["weight"].shape
    _expect_channels(node, channels, in_channels_per_group * _groups_of(node, "filter"))
    for key in ("bias", "int8_scale", "int8_bias"):
        expect_length(node, key, filters)
    int8_shape = node.tensors.get("int8_weight", node.tensors["weight"]).shape
    if int8_shape != node.tensors["weight"].shape:
        raise ShapeError(
            f"{node.name}: expected int8_weight of the weight's shape "
            f"{list(node.tensors['weight'].shape)}, got {list(int8_shape)}"
        )
    shape = (batch, filters, *infer_windows(node, size, effective_kernel(node, kernel)))
    for residual in shapes[1:]:
        if not shapes_match(shape, residual):
            raise ShapeError(
                f"{node.name}: expected a residual of the output's shape {list(shape)}, "
                f"{node.inputs[1]!r} has {list(residual)}"
            )
        shape = merge_shapes(shape, residual)
    return shape


def convolve(
    x: npt.NDArray[_Float], weight: npt.NDArray[_Float], attributes: Mapping[str, Any]
) -> npt.NDArray[_Float]:
    """Convolution without bias: x ``[N, I, H, W]``, weight ``[O, I / groups, kH, kW]``.

    Every tap of the kernel is a matrix product over the channels of the input, shifted to it.
    """
    if (groups := attributes.get("groups", 1)) > 1:
        parts = zip(np.split(x, groups, 1), np.split(weight, groups), strict=True)
        whole = {**attributes, "groups": 1}
        return np.concatenate([convolve(part, kernels, whole) for part, kernels in parts], 1)
    (stride_h, stride_w), (dilation_h, dilation_w) = attributes["stride"], attributes["dilation"]
    top, left, bottom, right = sides(attributes["padding"])
    padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
    batch, channels, padded_h, padded_w = padded.shape
    filters, _, kernel_h, kernel_w = weight.shape
    # The last position of the window's corner, plus one.
    end_h = padded_h - dilation_h * (kernel_h - 1)
    end_w = padded_w - dilation_w * (kernel_w - 1)
    height, width = len(range(0, end_h, stride_h)), len(range(0, end_w, stride_w))
    sums = np.zeros((batch, filters, height * width), x.dtype)
    for i, j in np.ndindex(kernel_h, kernel_w):
        y, x0 = i * dilation_h, j * dilation_w
        tap = padded[:, :, y : y + end_h : stride_h, x0 : x0 + end_w : stride_w]
        sums += weight[:, :, i, j] @ tap.reshape(batch, channels, height * width)
    return sums.reshape(batch, filters, height, width)


def _compute_conv2d(node: Node, x: Array, *residual: Array) -> Array:
    sums = convolve(x, node.tensors["weight"], node.attributes)
    return activate(sum(residual, sums + by_channel(node, "bias")), node.attributes)


def int8_weights(node: Node) -> tuple[npt.NDArray[np.int8], Array, Array | None]:
    """Levels, scales and bias of a convolution that reads int8."""
    tensors = node.tensors
    if "int8_weight" not in tensors:
        return *quantize_weight(tensors["weight"]), tensors.get("bias")
    return tensors["int8_weight"].astype(np.int8), tensors["int8_scale"], tensors["int8_bias"]


def _compute_conv2d_int8(node: Node, params: QParams, x: Array, *residual: Array) -> Array:
    """Integers times integers, summed exactly, with a float32 output stage."""
    weight, scale, bias = int8_weights(node)
    # x holds multiples of the step, so this recovers the integers; float64 sums are exact.
    integers = params.quantize(x).astype(np.float64) - params.zero_point
    sums = convolve(integers, weight.astype(np.float64), node.attributes)
    multiplier = (scale * params.scale).reshape(1, -1, 1, 1)
    levels = sums.astype(np.float32) * multiplier
    if bias is not None:
        levels = levels + bias.reshape(1, -1, 1, 1)
    return activate(sum(residual, levels), node.attributes)


def _export_conv2d(context: OnnxContext) -> None:
    attributes = context.node.attributes
    if context.input_scale is None:
        tensors = _float_tensors(context, context.node)
    else:
        tensors = _int8_tensors(context, np.float64(context.input_scale))
    result = context.add(
        "Conv",
        context.inputs[0],
        *tensors,
        strides=attributes["stride"],
        pads=sides(attributes["padding"]),
        dilations=attributes["dilation"],
        group=attributes.get("groups", 1),
    )
    for residual in context.inputs[1:]:
        result = context.add("Add", result, residual)
    export_activation(context, result)


def _float_tensors(context: OnnxContext, node: Node) -> list[str]:
    """The names of the weight and, where there is one, the bias of a convolution."""
    return [
        context.constant(key, node.tensors[key])
        for key in ("weight", "bias")
        if key in node.tensors
    ]


def _int8_tensors(context: OnnxContext, input_scale: np.float64) -> list[str]:
    """The same, dequantized from integers.

    Integer kernels add the bias as int32 in units of the products. Where it would not fit next to
    small weights, the scale of that channel's weights is raised until it does.
    """
    node = context.node
    integers, scale, bias = int8_weights(node)
    room = _INT32_MAX - _MAX_PRODUCT * np.abs(integers.astype(np.int64)).sum(axis=(1, 2, 3))
    if room.min() < _INT32_MAX // 2:  # the sums exceed int32: float arithmetic computes them
        rounded = {"weight": integers * scale[:, None, None, None]}
        if bias is not None:
            rounded["bias"] = bias
        return _float_tensors(context, replace(node, tensors=rounded))
    # Integer kernels have no tanh; others compute with the bias as it is.
    fuses = bias is not None and node.attributes["activation"] != "tanh"
    if bias is not None and fuses:
        # The largest bias leaves the other half of int32 to the sums.
        least = np.abs(bias.astype(np.float64)) / (input_scale * (_INT32_MAX // 2))
        raised = np.maximum(scale, least).astype(np.float32)
        if "int8_weight" in node.tensors:
            ratio = (scale / raised)[:, None, None, None]
            integers, scale = np.rint(integers * ratio).astype(np.int8), raised
        else:
            integers, scale = quantize_weight(node.tensors["weight"], raised)
    tensors = [
        context.add(
            "DequantizeLinear",
            context.constant("weight", integers),
            context.constant("weight_scale", scale),
            context.constant("weight_zero_point", np.zeros_like(scale, np.int8)),
            axis=0,
            key="weight/dequantized",
        )
    ]
    if bias is not None and fuses:
        product = scale * np.float32(input_scale)
        tensors.append(
            context.add(
                "DequantizeLinear",
                context.constant("bias", np.rint(bias / product).astype(np.int32)),
                context.constant("bias_scale", product),
                axis=0,
                key="bias/dequantized",
            )
        )
    elif bias is not None:
        tensors.append(context.constant("bias", bias))
    return tensors


# ------------------------------------------------------------------------- transposed convolution


def _infer_conv_transpose2d(node: Node, shapes: Sequence[Shape]) -> Shape:
    batch, channels, *size = shapes[0]
    in_channels, filters, *kernel = node.tensors["weight"].shape
    groups = _groups_of(node, "channel")
    _expect_channels(node, channels, in_channels)
    expect_length(node, "bias", filters * groups)
    sizes = []
    for axis, (n, extent) in enumerate(zip(size, effective_kernel(node, kernel), strict=True)):
        stride, padding, output_padding, dilation = (
            node.attributes[key][axis]
            for key in ("stride", "padding", "output_padding", "dilation")
        )
        if output_padding >= max(stride, dilation):
            raise ShapeError(f"{node.name}: output_padding must be below stride or dilation")
        total = None if n is None else (n - 1) * stride + extent - 2 * padding + output_padding
        if total is not None and total < 1:
            raise ShapeError(
                f"{node.name}: the output would be empty: {node.inputs[0]!r} has size {n}"
            )
        sizes.append(total)
    return (batch, filters * groups, *sizes)


def _compute_conv_transpose2d(node: Node, x: Array) -> Array:
    """Every input pixel adds its multiple of the kernel to the output, which is then cropped."""
    weight = node.tensors["weight"]
    keys = ("stride", "padding", "output_padding", "dilation")
    stride, padding, output_padding, dilation = (node.attributes[key] for key in keys)
    groups = node.attributes.get("groups", 1)
    batch, _, *size = x.shape
    _, filters, *kernel = weight.shape
    height, width = (
        (n - 1) * step + extent + extra
        for n, step, extent, extra in zip(
            size, stride, effective_kernel(node, kernel), output_padding, strict=True
        )
    )
    y = np.zeros((batch, groups * filters, height, width), np.float32)
    parts = zip(np.split(x, groups, 1), np.split(weight, groups), strict=True)
    for group, (part, kernels) in enumerate(parts):
        into = y[:, group * filters : (group + 1) * filters]
        for i, j in np.ndindex(*kernel):
            top, left = i * dilation[0], j * dilation[1]
            rows = slice(top, top + (size[0] - 1) * stride[0] + 1, stride[0])
            columns = slice(left, left + (size[1] - 1) * stride[1] + 1, stride[1])
            into[:, :, rows, columns] += np.einsum("nihw,io->nohw", part, kernels[:, :, i, j])
    cropped = y[:, :, padding[0] : height - padding[0], padding[1] : width - padding[1]]
    return activate(cropped + by_channel(node, "bias"), node.attributes)


def _groups_of(node: Node, unit: str) -> int:
    """The number of groups, which divides the filters or channels, the first axis of the weight."""
    groups: int = node.attributes.get("groups", 1)
    count = len(node.tensors["weight"])
    if count % groups:
        raise ShapeError(f"{node.name}: {groups} groups must divide the {count} {unit}s")
    return groups


def _expect_channels(node: Node, channels: int | None, in_channels: int) -> None:
    if channels != in_channels:
        raise ShapeError(
            f"{node.name}: the weight takes {in_channels} channels, "
            f"{node.inputs[0]!r} has {channels}"
        )


OPERATIONS = (
    OpSchema(
        name="conv2d",
        compute=_compute_conv2d,
        compute_int8=_compute_conv2d_int8,
        export=_export_conv2d,
        attributes={**_ATTRIBUTES, "padding": PADDING},
        tensors={**_TENSORS, **_INT8_TENSORS},
        optional=_OPTIONAL | _INT8_TENSORS.keys(),
        optional_inputs=1,
        check=_check_conv2d,
        infer_shape=_infer_conv2d,
    ),
    OpSchema(
        name="conv_transpose2d",
        compute=_compute_conv_transpose2d,
        export=None,  # `passes.optimize` turns it into a convolution
        attributes={**_ATTRIBUTES, "padding": pair(0), "output_padding": pair(0)},
        tensors=_TENSORS,
        optional=_OPTIONAL,
        check=check_activation,
        infer_shape=_infer_conv_transpose2d,
    ),
)
