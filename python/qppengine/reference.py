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
from qppengine.operations import sides

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

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


def quantize_weight(
    weight: Array, scale: Array | None = None
) -> tuple[npt.NDArray[np.int8], Array]:
    """Symmetric int8 by output channel, ``[O, I, kH, kW]``, and scales ``[O]``.

    Those are max|w| / 127 unless they are given.
    """
    stored = weight.astype(np.float16).astype(np.float32)  # the model file holds fp16
    if scale is not None:
        return np.rint(stored / scale[:, None, None, None]).astype(np.int8), scale
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
        x, *others = (
            (held if graph.reads_int8(node, index) else values)[name]
            for index, name in enumerate(node.inputs)
        )
        if node.op == "conv2d" and in_int8:
            params = QParams.from_bounds(*rows[node.inputs[0]], activation_bits)
            weight, scale = quantize_weight(node.tensors["weight"])
            # x is on the grid, so this recovers the integers; in float64 their sums are exact.
            integers = params.quantize(x).astype(np.float64) - params.zero_point
            sums = convolve(integers, weight.astype(np.float64), node.attributes)
            multiplier = (scale * params.scale).reshape(1, -1, 1, 1)
            bias = np.reshape(node.tensors.get("bias", np.float32(0)), (1, -1, 1, 1))
            levels = sum(others, sums.astype(np.float32) * multiplier + bias)
            y = _activate(levels, node.attributes)
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
        return _activate(sum(others, sums + bias), node.attributes)
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
    if node.op in _ARRANGEMENTS:
        return np.ascontiguousarray(_ARRANGEMENTS[node.op](node, x, *others))
    if node.op.endswith("pool2d"):
        return _pool(node, x)
    if node.op == "global_avg_pool":
        return np.asarray(x.mean(axis=(2, 3), keepdims=True, dtype=np.float64), np.float32)
    if node.op.endswith("softmax"):
        shifted = x - x.max(axis=1, keepdims=True)
        logarithm = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        y = logarithm if node.op == "log_softmax" else np.exp(logarithm)
        return np.asarray(y, np.float32)
    if node.op == "argmax":
        return np.asarray(x.argmax(axis=1)[:, None], np.float32)
    if node.op == "conv_transpose2d":
        return _activate(_convolve_transposed(node, x), node.attributes)
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
    kernel, stride = (node.attributes[key][axis] for key in ("kernel", "stride"))
    step = node.attributes.get("dilation", (1, 1))[axis]
    padding = sides(node.attributes["padding"])
    before, end = padding[axis], size + padding[axis + 2]
    reach = step * (kernel - 1) + 1
    ceil_mode = node.attributes["ceil_mode"]
    firsts = range(-before, size if ceil_mode else end, stride)
    last = end + stride - 1 if ceil_mode else end
    return [
        range(first, min(first + reach, end), step) for first in firsts if first + reach <= last
    ]


def _convolve_transposed(node: Node, x: Array) -> Array:
    """Every input pixel adds its multiple of the kernel to the output, which then is cut."""
    weight, bias = node.tensors["weight"], node.tensors.get("bias", np.float32(0))
    keys = ("stride", "padding", "output_padding", "dilation")
    stride, padding, more, dilation = (node.attributes[key] for key in keys)
    groups = node.attributes.get("groups", 1)
    batch, _, *size = x.shape
    _, filters, *kernel = weight.shape
    reach = [step * (taps - 1) + 1 for step, taps in zip(dilation, kernel, strict=True)]
    whole = [(n - 1) * s + r for n, s, r in zip(size, stride, reach, strict=True)]
    y = np.zeros((batch, groups * filters, whole[0] + more[0], whole[1] + more[1]), np.float32)
    parts = zip(np.split(x, groups, 1), np.split(weight, groups), strict=True)
    for group, (part, kernels) in enumerate(parts):
        into = y[:, group * filters : (group + 1) * filters]
        for i, j in np.ndindex(*kernel):
            top, left = i * dilation[0], j * dilation[1]
            rows = slice(top, top + (size[0] - 1) * stride[0] + 1, stride[0])
            columns = slice(left, left + (size[1] - 1) * stride[1] + 1, stride[1])
            into[:, :, rows, columns] += np.einsum("nihw,io->nohw", part, kernels[:, :, i, j])
    bottom, right = y.shape[2] - padding[0], y.shape[3] - padding[1]
    return y[:, :, padding[0] : bottom, padding[1] : right] + np.reshape(bias, (1, -1, 1, 1))


def _slice(node: Node, x: Array) -> Array:
    part = slice(*(node.attributes[key] for key in ("start", "stop", "step")))
    return x[tuple(part if axis == node.attributes["axis"] else slice(None) for axis in range(4))]


def _pad(node: Node, x: Array) -> Array:
    top, left, bottom, right = node.attributes["padding"]
    rows = slice(max(-top, 0), x.shape[2] - max(-bottom, 0))
    columns = slice(max(-left, 0), x.shape[3] - max(-right, 0))
    widths = ((0, 0), (0, 0), (max(top, 0), max(bottom, 0)), (max(left, 0), max(right, 0)))
    part = x[:, :, rows, columns]
    if node.attributes["mode"] == "zeros":
        return np.pad(part, widths)
    return np.pad(part, widths, "reflect" if node.attributes["mode"] == "reflect" else "edge")


def _rearrange(node: Node, x: Array) -> Array:
    view, order = node.attributes["view"], node.attributes["order"]
    sizes = [*view[:-2], *x.shape[2:]] if None in view else view
    y = x.reshape(len(x), *sizes).transpose(0, *(index + 1 for index in order))
    _, *sizes = y.shape
    while len(sizes) > 3:
        sizes = [sizes[0] * sizes[1], *sizes[2:]]
    return np.asarray(y.reshape(len(x), *sizes, *[1] * (3 - len(sizes))))


def _resize(node: Node, x: Array) -> Array:
    """Rows first, then columns, between their two sources."""
    sizes = node.attributes.get("size")
    scales = node.attributes.get("scale", (0, 0))
    for axis in (2, 3):
        size = x.shape[axis]
        scale = scales[axis - 2]
        target = sizes[axis - 2] if sizes else int(np.floor(size * scale))
        index = np.arange(target, dtype=np.float32)
        mode = node.attributes["mode"]
        keeps = mode != "nearest-exact" and target == size
        doubles = mode == "nearest" and target == 2 * size
        snaps = node.attributes.get("snap_scale", False) and (keeps or doubles)
        by_sizes = np.float32(size) / np.float32(target)
        step = np.float32(1 / scale) if scale and not snaps else by_sizes
        if node.attributes["align_corners"]:
            step = np.float32(size - 1) / np.float32(max(target - 1, 1))
        half = np.float32(0.5)
        if mode == "nearest-exact":
            place = step * (index + half)
        elif mode == "bilinear" and not node.attributes["align_corners"]:
            place = np.maximum(step * (index + half) - half, np.float32(0))
        else:
            place = step * index
        first = np.minimum(place.astype(np.int64), size - 1)
        if mode != "bilinear":
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


def _pixel_shuffle(node: Node, x: Array) -> Array:
    factor = node.attributes["upscale_factor"]
    batch, channels, height, width = x.shape
    blocks = x.reshape(batch, channels // factor**2, factor, factor, height, width)
    pixels = blocks.transpose(0, 1, 4, 2, 5, 3)
    return np.asarray(pixels.reshape(batch, -1, height * factor, width * factor))


def _pixel_unshuffle(node: Node, x: Array) -> Array:
    factor = node.attributes["downscale_factor"]
    batch, depth, height, width = x.shape
    blocks = x.reshape(batch, depth, height // factor, factor, width // factor, factor)
    channels = blocks.transpose(0, 1, 3, 5, 2, 4)
    return np.asarray(channels.reshape(batch, -1, height // factor, width // factor))


# Operations that only move elements.
_ARRANGEMENTS: Mapping[str, Callable[..., Array]] = {
    "concat": lambda node, *inputs: np.concatenate(inputs, axis=1),
    "slice": _slice,
    "pad": _pad,
    "resize": _resize,
    "flatten": lambda node, x: x.reshape(len(x), -1, 1, 1),
    "rearrange": _rearrange,
    "pixel_shuffle": _pixel_shuffle,
    "pixel_unshuffle": _pixel_unshuffle,
}


def _fake_quantize(x: Array, bounds: tuple[float, float] | None, bits: int) -> Array:
    if bounds is None:
        return x
    params = QParams.from_bounds(*bounds, bits)
    return params.dequantize(params.quantize(x))
