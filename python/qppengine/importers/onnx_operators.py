# SPDX-License-Identifier: Apache-2.0
"""Importers of ONNX operators. Inputs and attributes are named as in ONNX's schemas."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from qppengine.errors import UnsupportedError
from qppengine.importers.dimensions import (
    clamped,
    combined,
    concatenated,
    rearranged,
    softmax_over,
    split_into,
)
from qppengine.importers.onnx_shapes import positions
from qppengine.importers.program import AXES, Ref
from qppengine.importers.registry import ImportContext, Placed, importer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from qppengine.builder import GraphBuilder
    from qppengine.ir import Array


_OPEN_END = 2**31 - 1  # this and larger numbers mean the end of a slice


# ------------------------------------------------------------------- convolutions, linear layers


@importer("onnx.Conv")
def conv(context: ImportContext, graph: GraphBuilder) -> str:
    """A convolution of images or, with a kernel of height 1, of sequences."""
    weight = _tensor(context, "W")
    window = _Window.of(context, "X", weight.shape[2:])
    return graph.conv2d(
        context.image("X", graph),
        weight.reshape(*weight.shape[:2], *window.kernel),
        context.tensor("B"),
        stride=window.stride,
        padding=window.padding,
        dilation=window.dilation,
        groups=context.get("group"),
        name=context.name,
    )


@importer("onnx.ConvTranspose")
def conv_transpose(context: ImportContext, graph: GraphBuilder) -> str:
    """A transposed convolution with the same stride for rows and columns."""
    weight = _tensor(context, "W")
    more = context.get("output_padding", [0] * (weight.ndim - 2))
    window = _Window.of(context, "X", weight.shape[2:], more)
    if context.get("output_shape") or len(set(window.stride)) != 1:
        raise UnsupportedError(
            f"strides={window.stride}, or output_shape", closest="pads and one stride for images"
        )
    padding = tuple(map(min, window.begins, window.ends))
    value = graph.conv_transpose2d(
        context.image("X", graph),
        weight.reshape(*weight.shape[:2], *window.kernel),
        context.tensor("B"),
        stride=window.stride,
        padding=padding,
        output_padding=[0, *more][-2:],
        dilation=window.dilation,
        groups=context.get("group"),
        name=context.name,
    )
    if window.begins == window.ends:
        return value
    cut = [p - n for ns in (window.begins, window.ends) for p, n in zip(padding, ns, strict=True)]
    return graph.pad(value, cut, name=context.name)


@importer("onnx.Gemm")
def gemm(context: ImportContext, graph: GraphBuilder) -> str:
    """``alpha * A @ B + beta * C`` of rows A: a 1x1 convolution of single pixels."""
    if context.get("transA"):
        raise UnsupportedError("transA=1", closest="transA=0")
    matrix = _tensor(context, "B")
    weight = context.get("alpha") * (matrix if context.get("transB") else matrix.T)
    bias = None
    if context.get("C") is not None:
        offset = _tensor(context, "C")
        if offset.size not in (1, offset.shape[-1] if offset.ndim else 1):
            raise UnsupportedError("C must be one row", closest="C of shape [N]")
        bias = np.broadcast_to(context.get("beta") * offset.ravel(), len(weight))
    return graph.conv2d(_rows(context, "A"), weight[:, :, None, None], bias, name=context.name)


@importer("onnx.MatMul")
def matmul(context: ImportContext, graph: GraphBuilder) -> str:
    """The product of channels with a constant matrix ``[C, O]``: a 1x1 convolution."""
    matrix = _tensor(context, "B")
    if matrix.ndim != 2:
        raise UnsupportedError("B must be a matrix", closest="Gemm or Conv")
    rows = _rows(context, "A")
    return graph.conv2d(rows, matrix.T[:, :, None, None], name=context.name)


@importer("onnx.BatchNormalization")
def batch_normalization(context: ImportContext, graph: GraphBuilder) -> str:
    """Normalization by given statistics."""
    if context.get("training_mode"):
        raise UnsupportedError("statistics of the batch", closest="training_mode=0")
    prefix = "input_" if context.get("input_mean") is not None else ""  # since 14
    return graph.batch_norm(
        context.image("X", graph),
        _tensor(context, "scale"),
        _tensor(context, "B"),
        _tensor(context, f"{prefix}mean"),
        _tensor(context, f"{prefix}var"),
        eps=context.get("epsilon"),
        name=context.name,
    )


# ------------------------------------------------------------------------------------ activations


@importer("onnx.Relu")
def relu(context: ImportContext, graph: GraphBuilder) -> str:
    """``max(X, 0)``."""
    return graph.relu(context.value("X"), name=context.name)


@importer("onnx.Tanh")
def tanh(context: ImportContext, graph: GraphBuilder) -> str:
    """The hyperbolic tangent."""
    return graph.tanh(context.value("input"), name=context.name)


@importer("onnx.HardSigmoid")
def hard_sigmoid(context: ImportContext, graph: GraphBuilder) -> str:
    """``min(max(alpha * X + beta, 0), 1)``; a function of its own with the usual numbers."""
    alpha, beta = context.get("alpha"), context.get("beta")
    if math.isclose(alpha, 1 / 6, rel_tol=1e-5) and beta == 0.5:
        return graph.unary(context.value("X"), "hardsigmoid", name=context.name)
    line = graph.affine(context.image("X", graph), alpha, beta)
    return graph.clamp(line, 0, 1, name=context.name)


@importer("onnx.LeakyRelu")
def leaky_relu(context: ImportContext, graph: GraphBuilder) -> str:
    """A parametric ReLU with one constant slope."""
    return graph.prelu(context.value("X"), [context.get("alpha")], name=context.name)


@importer("onnx.PRelu")
def prelu(context: ImportContext, graph: GraphBuilder) -> str:
    """A parametric ReLU with one slope, or one for every channel."""
    slopes = _by_channel(context, "slope", "X")
    return graph.prelu(context.value("X"), slopes, name=context.name)


@importer("onnx.Clip")
def clip(context: ImportContext, graph: GraphBuilder) -> str:
    """A clamp whose missing bounds are the largest finite numbers; relu where it is one."""
    bounds = [context.tensor(name) for name in ("min", "max")]
    if any(bound is not None and bound.size != 1 for bound in bounds):
        raise UnsupportedError("min and max must be single numbers")
    low, high = (
        default if bound is None else float(bound.item())
        for bound, default in zip(bounds, (-math.inf, math.inf), strict=True)
    )
    return clamped(graph, context.value("input"), min(low, high), high, context.name)


@importer("onnx.Softmax", "onnx.LogSoftmax")
def softmax(context: ImportContext, graph: GraphBuilder) -> str:
    """The softmax over one axis, or its logarithm."""
    axis = context.axis("input", context.get("axis"))
    log = "Log" in context.call.target
    return softmax_over(graph, context.value("input"), axis, log=log, name=context.name)


# ------------------------------------------------------------------------------------- arithmetic


@importer("onnx.Add")
def add(context: ImportContext, graph: GraphBuilder) -> str:
    """A sum, of two tensors or with a constant."""
    for value, constant in (("A", "B"), ("B", "A")):
        if (shift := _constant(context, constant, value)) is not None:
            return graph.affine(context.value(value), 1, shift, name=context.name)
    return combined(context, graph, "add", "A", "B")


@importer("onnx.Sub")
def sub(context: ImportContext, graph: GraphBuilder) -> str:
    """A difference, of two tensors or with a constant."""
    if (shift := _constant(context, "B", "A")) is not None:
        return graph.affine(context.value("A"), 1, -shift, name=context.name)
    if (shift := _constant(context, "A", "B")) is not None:
        return graph.affine(context.value("B"), -1, shift, name=context.name)
    return combined(context, graph, "sub", "A", "B")


@importer("onnx.Mul")
def mul(context: ImportContext, graph: GraphBuilder) -> str:
    """A product, of two tensors or with a constant."""
    for value, constant in (("A", "B"), ("B", "A")):
        if (gain := _constant(context, constant, value)) is not None:
            return graph.affine(context.value(value), gain, 0, name=context.name)
    return combined(context, graph, "mul", "A", "B")


@importer("onnx.Div")
def div(context: ImportContext, graph: GraphBuilder) -> str:
    """A division by a constant."""
    divisor = _constant(context, "B", "A")
    if divisor is None or not divisor.all():
        raise UnsupportedError("a divisor that is computed, or zero", closest="a constant")
    return graph.affine(context.value("A"), 1 / divisor, 0, name=context.name)


@importer("onnx.Concat")
def concat(context: ImportContext, graph: GraphBuilder) -> str:
    """Concatenated tensors."""
    values = context.value_list("inputs")
    axis = context.axis("inputs", context.get("axis"))
    return concatenated(graph, values, axis, context.name)


# ---------------------------------------------------------------------------------------- windows


@importer("onnx.MaxPool")
def max_pool(context: ImportContext, graph: GraphBuilder) -> str:
    """Maxima of windows."""
    window = _Window.of(context, "X", context.get("kernel_shape"))
    if window.dilation != (1, 1) and context.get("auto_pad").startswith("SAME"):
        raise UnsupportedError("auto_pad of dilated windows, where runtimes differ", closest="pads")
    return graph.max_pool2d(
        context.image("X", graph),
        window.kernel,
        stride=window.stride,
        padding=_pool_padding(window),
        dilation=window.dilation,
        ceil_mode=bool(context.get("ceil_mode")),
        name=context.name,
    )


@importer("onnx.AveragePool")
def average_pool(context: ImportContext, graph: GraphBuilder) -> str:
    """Means of windows."""
    window = _Window.of(context, "X", context.get("kernel_shape"))
    if window.dilation != (1, 1):
        raise UnsupportedError("dilations", closest="dilations=1")
    return graph.avg_pool2d(
        context.image("X", graph),
        window.kernel,
        stride=window.stride,
        padding=_pool_padding(window),
        ceil_mode=bool(context.get("ceil_mode")),
        count_include_pad=bool(context.get("count_include_pad")),
        name=context.name,
    )


def _pool_padding(window: _Window) -> tuple[int, ...]:
    widest = (2 * max(pair) for pair in zip(window.begins, window.ends, strict=True))
    if any(n > kernel for n, kernel in zip(widest, window.kernel, strict=True)):
        raise UnsupportedError(f"pads={window.padding}", closest="at most half the kernel")
    return window.padding


@importer("onnx.GlobalAveragePool")
def global_average_pool(context: ImportContext, graph: GraphBuilder) -> str:
    """The mean of every channel."""
    return graph.global_avg_pool(context.image("X", graph), name=context.name)


@importer("onnx.GlobalMaxPool")
def global_max_pool(context: ImportContext, graph: GraphBuilder) -> str:
    """The maximum of every channel."""
    return graph.adaptive_max_pool2d(context.image("X", graph), 1, name=context.name)


@importer("onnx.ReduceMean")
def reduce_mean(context: ImportContext, graph: GraphBuilder) -> str | Placed:
    """The mean over height and width, or over the channels, which is a convolution."""
    axes, value = _axes(context, "data"), context.value("data")
    sizes = dict(zip(context.axes("data"), context.tensor_shape("data"), strict=True))
    if sorted(axes) == [1] and (channels := sizes[1]) is not None:
        graph.reserve(channels)
        weight = np.full((1, channels, 1, 1), 1 / channels, np.float32)
        return _reduced(context, graph.conv2d(value, weight, name=context.name), axes)
    # Axes that carry no dimension have size 1.
    if not set(axes) or {2, 3} & set(sizes) != set(axes):
        raise UnsupportedError(f"axes={context.get('axes')}", closest="axes=[2, 3] or axes=[1]")
    return _reduced(context, graph.global_avg_pool(value, name=context.name), axes)


@importer("onnx.ReduceMax")
def reduce_max(context: ImportContext, graph: GraphBuilder) -> str | Placed:
    """The maximum over height and width."""
    axes, value = _axes(context, "data"), context.value("data")
    if not set(axes) or {2, 3} & set(context.axes("data")) != set(axes):
        raise UnsupportedError(f"axes={context.get('axes')}", closest="axes=[2, 3]")
    return _reduced(context, graph.adaptive_max_pool2d(value, 1, name=context.name), axes)


@importer("onnx.ArgMax")
def arg_max(context: ImportContext, graph: GraphBuilder) -> str | Placed:
    """The index of the first largest channel, as a float."""
    axis = context.axis("data", context.get("axis"))
    if axis != 1 or context.get("select_last_index"):
        raise UnsupportedError(
            "select_last_index=1, or an axis other than channels", closest="axis=1"
        )
    return _reduced(context, graph.argmax(context.value("data"), name=context.name), [1])


@importer("onnx.Resize")
def resize(context: ImportContext, graph: GraphBuilder) -> str:
    """Resizing of height and width, in any form that is equivalent to one of the engine's."""
    scales = context.tensor("scales")
    sizes, targets = context.tensor_shape("X"), context.output_shape()
    dimensions = context.get("axes") or list(range(len(sizes)))
    if scales is not None and scales.size > 0:
        # The shortest decimal is the intended number: 0.7, not the float32 below it.
        written = (float(str(scale)) for scale in scales)
        factors = dict(zip(positions(dimensions, len(sizes)), written, strict=True))
    elif None in targets[2:]:
        raise UnsupportedError("sizes known at run time only", closest="scales")
    else:
        factors = {}
    if sizes[:2] != targets[:2] or len(sizes) != 4 or context.get("antialias"):
        raise UnsupportedError("antialias, or a change of channels", closest="height and width")
    scale = [factors.get(dimension, 1.0) for dimension in (2, 3)]
    axes = [
        _ResizedAxis(size, target, factor if factors else None)
        for size, target, factor in zip(sizes[2:], targets[2:], scale, strict=True)
    ]
    return graph.resize(
        context.image("X", graph),
        size=None if factors else [target or 0 for target in targets[2:]],
        scale=scale if factors else None,
        name=context.name,
        **_resize_mode(context, axes),
    )


_MAX_RESIZED = 2**20  # pixels of one axis, each of which is compared


class _ResizedAxis(NamedTuple):
    """Height or width before and after, where they are known, and the factor, if that is given."""

    size: int | None
    target: int | None
    factor: float | None

    def places(self, coordinates: str) -> NDArray[np.float64]:
        """The coordinates of the result's pixels on the image, from 0 to size - 1."""
        size = self.size or 16  # any size shows the pattern
        scale = self.factor or (self.target or size) / size
        target = self.target or math.floor(size * scale)
        if max(size, target) > _MAX_RESIZED:
            raise UnsupportedError(
                f"{max(size, target)} rows or columns", closest=f"up to {_MAX_RESIZED}"
            )
        index = np.arange(target)
        length = size * scale  # as ONNX has it: no whole number
        if coordinates == "align_corners" and not math.isclose(length, target, rel_tol=1e-6):
            # ONNX's text and ONNX Runtime differ in where the last pixel is.
            raise UnsupportedError(
                f"align_corners with the scale {scale:g} of {size} pixels", closest="sizes"
            )
        places = {
            "half_pixel": (index + 0.5) / scale - 0.5,
            "pytorch_half_pixel": (index + 0.5) / scale - 0.5 if target > 1 else 0 * index,
            "half_pixel_symmetric": (size - size * target / length) / 2
            + (index + 0.5) / scale
            - 0.5,
            "asymmetric": index / scale,
            "align_corners": index * (size - 1) / (length - 1) if length != 1 else 0 * index,
            "engine_align_corners": index * ((size - 1) / max(target - 1, 1)),
        }
        if coordinates not in places:
            raise UnsupportedError(
                f"coordinate_transformation_mode={coordinates}", closest="half_pixel"
            )
        return np.clip(places[coordinates], 0, size - 1)


_ROUNDINGS: Mapping[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "floor": np.floor,
    "ceil": np.ceil,
    "round_prefer_floor": lambda places: np.ceil(places - 0.5),
    "round_prefer_ceil": lambda places: np.floor(places + 0.5),
}


def _resize_mode(context: ImportContext, axes: Sequence[_ResizedAxis]) -> dict[str, Any]:
    """The form of the engine's that reads the same pixels."""
    mode = context.get("mode")
    coordinates = context.get("coordinate_transformation_mode")
    if mode == "nearest":
        rounding = context.get("nearest_mode")
        round_ = _ROUNDINGS[rounding]
        for own, own_round, name in (
            ("asymmetric", np.floor, "nearest"),
            ("half_pixel", _ROUNDINGS["round_prefer_ceil"], "nearest-exact"),
        ):
            if all(
                np.array_equal(round_(axis.places(coordinates)), own_round(axis.places(own)))
                for axis in axes
            ):
                return {"mode": name}
        raise UnsupportedError(
            f"nearest with {coordinates} and {rounding}", closest="asymmetric and floor"
        )
    if mode != "linear":
        raise UnsupportedError(f"mode={mode}", closest="linear")
    for aligned, own in ((False, "half_pixel"), (True, "engine_align_corners")):
        if all(np.allclose(axis.places(coordinates), axis.places(own)) for axis in axes):
            return {"mode": "bilinear", "align_corners": aligned}
    raise UnsupportedError(f"linear with {coordinates}", closest="half_pixel or align_corners")


@importer("onnx.DepthToSpace")
def depth_to_space(context: ImportContext, graph: GraphBuilder) -> str:
    """Channels to space; in mode DCR the channels of the result come last."""
    factor, mode = context.get("blocksize"), context.get("mode")
    if mode not in ("DCR", "CRD"):
        raise UnsupportedError(f"mode={mode}", closest="DCR or CRD")
    value = context.image("input", graph)
    channels = context.tensor_shape("input")[1]
    if mode == "DCR" and channels is not None:
        view = (factor, factor, channels // factor**2, None, None)
        value = graph.rearrange(value, view, (2, 0, 1, 3, 4))
    return graph.pixel_shuffle(value, factor, name=context.name)


@importer("onnx.SpaceToDepth")
def space_to_depth(context: ImportContext, graph: GraphBuilder) -> str:
    """Space to channels; in mode DCR, the only one there was, the input's channels come last."""
    factor = context.get("blocksize")
    value = graph.pixel_unshuffle(context.image("input", graph), factor, name=context.name)
    channels = context.tensor_shape("input")[1]
    if context.get("mode", "DCR") == "DCR" and channels is not None:
        view = (channels, factor, factor, None, None)
        return graph.rearrange(value, view, (1, 2, 0, 3, 4), name=context.name)
    return value


@importer("onnx.Slice")
def slice_(context: ImportContext, graph: GraphBuilder) -> str:
    """Parts of some axes, one after the other."""
    starts, ends = context.get("starts"), context.get("ends")
    dimensions = context.get("axes") or list(range(len(starts)))
    steps = context.get("steps") or [1] * len(starts)
    value = context.value("data")
    axes = context.axes("data")
    for start, end, dimension, step in zip(starts, ends, dimensions, steps, strict=True):
        axis = context.axis("data", dimension)
        if None in (start, end) or step < 1 or axis == 0 or axes.count(axis) > 1:
            raise UnsupportedError(
                "a part of the batch, backwards, or known at run time only", closest="constants"
            )
        stop = None if end >= _OPEN_END else end
        value = graph.slice(value, axis, start, stop, step, name=graph.unique(context.name))
    return value


@importer("onnx.Split")
def split(context: ImportContext, graph: GraphBuilder) -> list[str | Placed]:
    """All parts of one axis."""
    axis = context.axis("input", context.get("axis"))
    size = context.tensor_shape("input")[context.get("axis")]
    lengths = context.get("split")
    if lengths is None and size is not None:
        count = context.get("num_outputs") or len(context.call.outputs)
        length = -(-size // count)
        lengths = [min(length, size - start) for start in range(0, size, length)]
    if not isinstance(lengths, list) or not all(lengths):
        raise UnsupportedError(f"split={lengths}", closest="parts of constant, positive size")
    return split_into(context, graph, "input", axis, lengths)


@importer("onnx.Pad")
def pad(context: ImportContext, graph: GraphBuilder) -> str:
    """Pads images: with zeros, or with reflected or repeated pixels."""
    modes = {"constant": "zeros", "reflect": "reflect", "edge": "replicate"}
    mode, pads = context.get("mode"), context.get("pads")
    fill = context.get("constant_value")
    value = 0 if fill is None else float(_tensor(context, "constant_value").item())
    rank = len(context.axes("data"))
    axes = [context.axis("data", dimension) for dimension in context.get("axes") or range(rank)]
    if mode not in modes or value != 0 or not isinstance(pads, list) or None in pads:
        raise UnsupportedError(f"mode={mode}, value {value:g}", closest="constant zeros")
    begins = dict(zip(axes, pads[: len(axes)], strict=True))
    ends = dict(zip(axes, pads[len(axes) :], strict=True))
    if any(begins.get(axis) or ends.get(axis) for axis in (0, 1)):
        raise UnsupportedError(f"pads={pads} of batch or channels", closest="height and width")
    around = [side.get(axis, 0) for side in (begins, ends) for axis in (2, 3)]
    return graph.pad(context.value("data"), around, mode=modes[mode], name=context.name)


# ---------------------------------------------------------------------------------------- shapes


@importer("onnx.Flatten")
def flatten(context: ImportContext, graph: GraphBuilder) -> Placed:
    """All but the batch in one dimension."""
    rank = len(context.axes("input"))
    if rank < 2 or context.get("axis") % rank != 1:
        raise UnsupportedError(f"axis={context.get('axis')}", closest="axis=1")
    return rearranged(context, graph, "input", context.output_shape())


@importer("onnx.Reshape")
def reshape(context: ImportContext, graph: GraphBuilder) -> Placed:
    """The same elements with other dimensions."""
    return rearranged(context, graph, "data", context.output_shape())


@importer("onnx.Squeeze")
def squeeze(context: ImportContext, graph: GraphBuilder) -> Placed:
    """Forgets dimensions of size 1."""
    axes = context.axes("data")
    if len(axes) not in AXES:
        return rearranged(context, graph, "data", context.output_shape())
    if context.get("axes") is None:
        sizes = zip(axes, context.tensor_shape("data"), strict=True)
        removed = [axis for axis, size in sizes if size == 1]
    else:
        removed = _axes(context, "data")
    return Placed(context.value("data"), tuple(axis for axis in axes if axis not in removed))


@importer("onnx.Unsqueeze")
def unsqueeze(context: ImportContext, graph: GraphBuilder) -> Placed:
    """Gives back dimensions of size 1, on free axes if there are any."""
    axes, added = context.axes("data"), context.get("axes")
    rank = len(axes) + len(added)
    places = {place % rank for place in added}
    for candidate in (AXES.get(rank, ()), *itertools.combinations(AXES[4], rank)):
        if tuple(a for place, a in enumerate(candidate) if place not in places) == axes:
            return Placed(context.value("data"), candidate)
    return rearranged(context, graph, "data", context.output_shape())


@importer("onnx.Transpose")
def transpose(context: ImportContext, graph: GraphBuilder) -> Placed:
    """Another order of the dimensions: up to four change their names only, not the image."""
    axes = context.axes("data")
    order = context.get("perm", list(range(len(axes)))[::-1])
    if len(axes) in AXES:
        return Placed(context.value("data"), tuple(axes[dimension] for dimension in order))
    return rearranged(context, graph, "data", context.tensor_shape("data"), order)


@importer("onnx.Identity", "onnx.Dropout", "onnx.Cast")
def identity(context: ImportContext, graph: GraphBuilder) -> str:
    """Operators that return the tensor they are given, as far as the engine sees it."""
    if context.get("training_mode"):
        raise UnsupportedError("dropout in training mode", closest="training_mode=false")
    if context.get("to", 1) not in (1, 10, 11, 16):  # FLOAT, FLOAT16, DOUBLE, BFLOAT16
        raise UnsupportedError("a cast to integers", closest="a floating-point type")
    argument = next(name for name, a in context.call.arguments.items() if isinstance(a, Ref))
    return context.value(argument)


# ---------------------------------------------------------------------------------------- helpers


class _Window(NamedTuple):
    """The geometry of a kernel that moves over an image; pairs are height, width."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    begins: tuple[int, ...]
    ends: tuple[int, ...]

    @classmethod
    def of(
        cls,
        context: ImportContext,
        argument: str,
        kernel: Sequence[int],
        more: Sequence[int] | None = None,
    ) -> _Window:
        """What the attributes say; one dimension is the width of an image of height 1.

        With `more`, the output padding of a transposed convolution, it is the window of one.
        """
        rank = len(kernel)
        size = context.tensor_shape(argument)[2:]
        if rank not in (1, 2) or len(size) != rank:
            raise UnsupportedError(f"{rank} spatial dimensions", closest="2 spatial dimensions")
        stride = context.get("strides", [1] * rank)
        dilation = context.get("dilations", [1] * rank)
        pads = context.get("pads", [0] * 2 * rank)
        begins, ends = pads[:rank], pads[rank:]
        mode = context.get("auto_pad")
        if mode == "VALID":
            begins = ends = [0] * rank
        elif mode != "NOTSET":
            spans = [step * (n - 1) + 1 for step, n in zip(dilation, kernel, strict=True)]
            if more is None:
                total = [_same(*sizes) for sizes in zip(size, spans, stride, strict=True)]
            else:
                total = [
                    max(sum(n), 0) for n in zip(spans, more, [-n for n in stride], strict=True)
                ]
            small, large = [n // 2 for n in total], [n - n // 2 for n in total]
            begins, ends = (small, large) if mode == "SAME_UPPER" else (large, small)
        flat = [(1, 1, 1, 0, 0)] * (2 - rank)
        rows = [*flat, *zip(kernel, stride, dilation, begins, ends, strict=True)]
        return cls(*zip(*rows, strict=True))

    @property
    def padding(self) -> tuple[int, ...]:
        """Height and width, or all four sides where they differ."""
        return self.begins if self.begins == self.ends else (*self.begins, *self.ends)


def _same(size: int | None, span: int, stride: int) -> int:
    """The padding that makes the output as large as the image, over the stride."""
    if stride == 1:
        return span - 1
    if size is None:
        raise UnsupportedError("auto_pad of any size", closest="pads")
    total = (-(-size // stride) - 1) * stride + span - size
    if total < 0:  # runtimes differ in whether they omit pixels at the beginning
        raise UnsupportedError(
            f"auto_pad of a window of {span} with stride {stride}", closest="pads"
        )
    return total


def _rows(context: ImportContext, argument: str) -> str:
    """A value of one row of channels for every sample."""
    if context.axes(argument) != AXES[2]:
        raise UnsupportedError(f"{argument} must be [N, C]", closest="a Flatten before it")
    return context.value(argument)


def _tensor(context: ImportContext, argument: str) -> Array:
    """Weights that have to be there."""
    tensor = context.tensor(argument)
    if tensor is None:
        raise UnsupportedError(f"{argument} must be a constant")
    return tensor


def _by_channel(context: ImportContext, argument: str, image: str) -> Array:
    """A constant with one number, or one for every channel of an image, as a vector."""
    tensor = _tensor(context, argument)
    axes = context.axes(image)
    sizes = dict(zip(axes[::-1], tensor.shape[::-1], strict=False))
    if tensor.ndim > len(axes) or any(n != 1 for axis, n in sizes.items() if axis != 1):
        raise UnsupportedError(f"{argument} {list(tensor.shape)}", closest="one for every channel")
    return tensor.ravel()


def _constant(context: ImportContext, argument: str, image: str) -> Array | None:
    """A number, or one for every channel of the other operand; None where it is computed."""
    ref = context.get(argument)
    if not isinstance(ref, Ref):
        raise UnsupportedError(f"{argument} must be computed from an input, or a constant")
    return None if context.is_computed(ref) else _by_channel(context, argument, image)


def _axes(context: ImportContext, argument: str) -> list[int]:
    """The axes of the image for the dimensions of the argument "axes"; all by default."""
    dimensions = context.get("axes")
    if not dimensions and context.get("noop_with_empty_axes"):
        raise UnsupportedError("a reduction over no axes", closest="axes=[2, 3]")
    if not dimensions:
        return list(context.axes(argument))
    return [context.axis(argument, dimension) for dimension in dimensions]


def _reduced(context: ImportContext, value: str, reduced: Sequence[int]) -> Placed:
    """A value of which some axes have become 1, and dimensions only if so asked."""
    keeps = context.get("keepdims")
    axes = context.axes("data")
    return Placed(value, tuple(axis for axis in axes if keeps or axis not in reduced))
