# SPDX-License-Identifier: Apache-2.0
"""NumPy execution of a graph, written to be read: the tests' oracle, and FP32 without torch.

`run` computes in float32. `run_quantized` computes what a quantized engine computes, from bounds
given for every quantized value: integers between the layers, exact integer sums, float32 epilogues.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from qppengine.errors import ShapeError
from qppengine.graph import KEEPS_LEVELS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from qppengine.graph import Array, Graph, Node

_Float = TypeVar("_Float", np.float32, np.float64)

# Of the step of a value that is zero everywhere.
_LARGEST_INVERSE = np.float32(2**40)


def run(graph: Graph, *inputs: Array) -> list[Array]:
    """Outputs of the network, in the order of ``graph.outputs``; arrays are ``[N, C, H, W]``."""
    values = run_all(graph, *inputs)
    return [values[name] for name in graph.outputs]


def run_all(graph: Graph, *inputs: Array) -> dict[str, Array]:
    """Every value of the network by name."""
    values = _bind(graph, inputs)
    for node in graph.nodes:
        values[node.output] = _apply(node, *(values[name] for name in node.inputs))
    return values


class QParams(NamedTuple):
    """Affine quantization of a value: x = scale * (q - zero_point), q an integer of `bits` bits."""

    scale: np.float32
    inverse_scale: np.float32
    zero_point: int
    bits: int

    @classmethod
    def from_bounds(cls, lo: float, hi: float, bits: int) -> QParams:
        """The parameters for clipping bounds, widened to hold zero so that zero padding is exact.

        The step is (hi - lo) / (2^bits - 1), enlarged until its inverse has no more significant
        bits than a half; zero_point places lo at the lowest integer.
        """
        low, high = np.float32(min(lo, 0.0)), np.float32(max(hi, 0.0))
        with np.errstate(divide="ignore"):
            inverse = min(np.float32(2**bits - 1) / (high - low), _LARGEST_INVERSE)
        inverse = (inverse.view(np.uint32) & np.uint32(0xFFFFE000)).view(np.float32)
        qmin = -(2 ** (bits - 1))
        zero_point = int(np.clip(np.rint(np.float32(qmin) - low * inverse), qmin, -qmin - 1))
        return cls(np.float32(1) / inverse, inverse, zero_point, bits)

    def quantize(self, x: Array) -> npt.NDArray[np.int8]:
        """Nearest integers, halves to even, clipped to the range of `bits`."""
        qmin = -(2 ** (self.bits - 1))
        q = np.rint(x * self.inverse_scale) + np.float32(self.zero_point)
        return np.asarray(np.clip(q, qmin, -qmin - 1), np.int8)

    def dequantize(self, q: npt.NDArray[np.int8]) -> Array:
        """The numbers the integers stand for."""
        steps = q.astype(np.float32) - np.float32(self.zero_point)
        return np.asarray(self.scale * steps, np.float32)


def quantize_weight(weight: Array) -> tuple[npt.NDArray[np.int8], Array]:
    """Symmetric int8 by output channel, ``[O, I, kH, kW]``, and scales ``[O]``: max|w| / 127."""
    stored = weight.astype(np.float16).astype(np.float32)  # the model file holds fp16
    peak = np.abs(stored).max(axis=(1, 2, 3))
    scale = np.where(peak > 0, peak / np.float32(127), np.float32(1)).astype(np.float32)
    return np.rint(stored / scale[:, None, None, None]).astype(np.int8), scale


def run_quantized(
    graph: Graph,
    bounds: Mapping[str, tuple[float, float]],
    *inputs: Array,
    activation_bits: int = 8,
    through_fp16: bool = False,
) -> dict[str, Array]:
    """Every value of the network in a quantized run, in which `Graph.int8_nodes` read integers.

    ``bounds`` gives lo, hi of each of ``graph.quantized_values``. Quantized values are returned
    dequantized. With ``through_fp16`` every value is rounded to fp16 first, as where the engine
    stores it in order to measure it.
    """
    rows = {value: bounds[owner] for value, owner in graph.row_owners.items()}
    values = _bind(graph, inputs)
    held = {name: _fake_quantize(x, rows.get(name), activation_bits) for name, x in values.items()}
    for node in graph.nodes:
        in_int8 = node.name in graph.int8_nodes
        x, *others = ((held if in_int8 else values)[name] for name in node.inputs)
        if node.op == "conv2d" and in_int8:
            params = QParams.from_bounds(*rows[node.inputs[0]], activation_bits)
            weight, scale = quantize_weight(node.tensors["weight"])
            # x is on the grid, so this recovers the integers; in float64 their sums are exact.
            integers = params.quantize(x).astype(np.float64) - params.zero_point
            sums = convolve(integers, weight.astype(np.float64), node.attributes)
            multiplier = (scale * params.scale).reshape(1, -1, 1, 1)
            bias = np.reshape(node.tensors.get("bias", np.float32(0)), (1, -1, 1, 1))
            y = _activate(sums.astype(np.float32) * multiplier + bias, node.attributes)
        else:
            y = _apply(node, x, *others)
        if through_fp16:
            y = y.astype(np.float16).astype(np.float32)
        quantized = _fake_quantize(y, rows.get(node.output), activation_bits)
        values[node.output] = quantized if in_int8 and node.op in KEEPS_LEVELS else y
        held[node.output] = quantized
    return held


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
    (pad_h, pad_w), (stride_h, stride_w) = attributes["padding"], attributes["stride"]
    dilation_h, dilation_w = attributes["dilation"]
    padded = np.pad(x, ((0, 0), (0, 0), (pad_h, pad_h), (pad_w, pad_w)))
    batch, channels, padded_h, padded_w = padded.shape
    filters, _, kernel_h, kernel_w = weight.shape
    # The last position of the window's corner, plus one.
    end_h = padded_h - dilation_h * (kernel_h - 1)
    end_w = padded_w - dilation_w * (kernel_w - 1)
    height, width = len(range(0, end_h, stride_h)), len(range(0, end_w, stride_w))
    sums = np.zeros((batch, filters, height * width), x.dtype)
    for i, j in np.ndindex(kernel_h, kernel_w):
        top, left = i * dilation_h, j * dilation_w
        tap = padded[:, :, top : top + end_h : stride_h, left : left + end_w : stride_w]
        sums += weight[:, :, i, j] @ tap.reshape(batch, channels, height * width)
    return sums.reshape(batch, filters, height, width)


def _bind(graph: Graph, inputs: Sequence[Array]) -> dict[str, Array]:
    """The inputs by name. Raises `ShapeError` when they do not fit the network."""
    if len(inputs) != len(graph.inputs):
        raise ShapeError(f"expected {len(graph.inputs)} inputs, got {len(inputs)}")
    values = {
        value.name: np.asarray(array, np.float32)
        for value, array in zip(graph.inputs, inputs, strict=True)
    }
    graph.infer_shapes({name: array.shape for name, array in values.items()})
    return values


def _apply(node: Node, x: Array, *others: Array) -> Array:
    """The output of an operation in float32."""
    if node.op == "conv2d":
        bias = np.reshape(node.tensors.get("bias", np.float32(0)), (1, -1, 1, 1))
        sums = convolve(x, node.tensors["weight"], node.attributes)
        return _activate(sums + bias, node.attributes)
    if node.op in ("add", "sub", "mul"):
        function = {"add": np.add, "sub": np.subtract, "mul": np.multiply}[node.op]
        return _activate(np.asarray(function(x, others[0]), np.float32), node.attributes)
    if node.op == "prelu":
        weight = node.tensors["weight"].reshape(1, -1, 1, 1)
        return np.asarray(np.maximum(x, 0) + weight * np.minimum(x, 0), np.float32)
    if node.op in ("sigmoid", "silu", "hardsigmoid", "hardswish"):
        hard = node.op.startswith("hard")
        gate = np.clip(x / 6 + 0.5, 0, 1) if hard else np.tanh(x / 2) / 2 + 0.5
        gates = node.op in ("sigmoid", "hardsigmoid")
        return np.asarray(gate if gates else x * gate, np.float32)
    if node.op in ("max_pool2d", "avg_pool2d"):
        return _pool(node, x)
    if node.op == "global_avg_pool":
        return np.asarray(x.mean(axis=(2, 3), keepdims=True, dtype=np.float64), np.float32)
    if node.op == "concat":
        return np.concatenate([x, *others], axis=1)
    if node.op == "resize":
        return _resize(node, x)
    if node.op == "flatten":
        return x.reshape(len(x), -1, 1, 1)
    if node.op == "pixel_shuffle":
        return _pixel_shuffle(x, node.attributes["upscale_factor"])
    if node.op == "batch_norm":
        mean, var, weight, bias = (
            node.tensors[key].reshape(1, -1, 1, 1) for key in ("mean", "var", "weight", "bias")
        )
        gain = weight / np.sqrt(var + np.float32(node.attributes["eps"]))
        return np.asarray((x - mean) * gain + bias, np.float32)
    return _activate(x, node.attributes)


def _pool(node: Node, x: Array) -> Array:
    """Maxima or means of windows, one window after another."""
    _, _, rows, columns = x.shape
    tops = _windows(node, rows, 0)
    lefts = _windows(node, columns, 1)
    y = np.empty((*x.shape[:2], len(tops), len(lefts)), np.float32)
    for i, (top, bottom) in enumerate(tops):
        for j, (left, right) in enumerate(lefts):
            window = x[:, :, max(top, 0) : bottom, max(left, 0) : right]
            if node.op == "max_pool2d":
                y[:, :, i, j] = window.max(axis=(2, 3))
                continue
            (pad_h, pad_w) = node.attributes["padding"]
            count = (min(bottom, rows + pad_h) - top) * (min(right, columns + pad_w) - left)
            if not node.attributes["count_include_pad"]:
                count = window.shape[2] * window.shape[3]
            y[:, :, i, j] = window.sum(axis=(2, 3)) / np.float32(count)
    return y


def _windows(node: Node, size: int, axis: int) -> list[tuple[int, int]]:
    """First and last + 1 of the windows along an axis, both possibly outside of the image."""
    kernel, stride, padding = (
        node.attributes[key][axis] for key in ("kernel", "stride", "padding")
    )
    firsts = range(-padding, size if node.attributes["ceil_mode"] else size + padding, stride)
    last = size + padding if not node.attributes["ceil_mode"] else size + padding + stride - 1
    return [(first, first + kernel) for first in firsts if first + kernel <= last]


def _resize(node: Node, x: Array) -> Array:
    """Rows first, then columns, between their two sources."""
    sizes = node.attributes.get("size")
    scales = node.attributes.get("scale", (0, 0))
    for axis in (2, 3):
        size = x.shape[axis]
        scale = scales[axis - 2]
        target = sizes[axis - 2] if sizes else int(np.floor(size * scale))
        index = np.arange(target, dtype=np.float32)
        step = np.float32(1 / scale) if scale else np.float32(size) / np.float32(target)
        if node.attributes["align_corners"]:
            step = np.float32(size - 1) / np.float32(max(target - 1, 1))
        half = np.float32(0.5)
        if node.attributes["mode"] == "bilinear" and not node.attributes["align_corners"]:
            place = np.maximum(step * (index + half) - half, np.float32(0))
        else:
            place = step * index
        first = np.minimum(place.astype(np.int64), size - 1)
        if node.attributes["mode"] == "nearest":
            x = np.take(x, first, axis)
            continue
        second = np.minimum(first + 1, size - 1)
        weight = (place - first).astype(np.float32).reshape(-1, *[1] * (3 - axis))
        near, far = np.take(x, first, axis), np.take(x, second, axis)
        x = np.asarray(near * (1 - weight) + far * weight, np.float32)
    return x


def _activate(x: Array, attributes: Mapping[str, Any]) -> Array:
    activation = attributes["activation"]
    if activation == "relu":
        return np.asarray(np.maximum(x, np.float32(0)))
    if activation == "tanh":
        return np.asarray(np.tanh(x))
    if activation == "clamp":
        lo, hi = attributes["clamp"]
        return np.clip(x, np.float32(lo), np.float32(hi))
    return x


def _pixel_shuffle(x: Array, factor: int) -> Array:
    batch, channels, height, width = x.shape
    blocks = x.reshape(batch, channels // factor**2, factor, factor, height, width)
    pixels = blocks.transpose(0, 1, 4, 2, 5, 3)
    return np.asarray(pixels.reshape(batch, -1, height * factor, width * factor))


def _fake_quantize(x: Array, bounds: tuple[float, float] | None, bits: int) -> Array:
    if bounds is None:
        return x
    params = QParams.from_bounds(*bounds, bits)
    return params.dequantize(params.quantize(x))
