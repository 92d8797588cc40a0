# SPDX-License-Identifier: Apache-2.0
"""Importers of PyTorch's ATen operators. Signatures are those of native_functions.yaml."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from qppengine.errors import UnsupportedError
from qppengine.importers.dimensions import (
    by_channel,
    clamped,
    combined,
    concatenated,
    expanded,
    filled,
    rearranged,
    sliced,
    softmax_over,
    split_into,
)
from qppengine.importers.program import AXES, Other, Ref, as_image, axes_of
from qppengine.importers.registry import ImportContext, Placed, importer, moved

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qppengine.builder import GraphBuilder
    from qppengine.ir import Array

_OPEN_END = 2**31  # this and larger numbers mean the end of a slice
_MAX_COPIES = 64  # that repeat makes along one dimension


@importer("aten.conv2d.default", "aten.conv2d.padding")
def conv2d(context: ImportContext, graph: GraphBuilder) -> str:
    """A convolution; padding is a number, a pair, "same" or "valid"."""
    weight = context.tensor("weight")
    if weight is None or weight.ndim != 4:
        raise UnsupportedError("weight must have 4 dimensions")
    dilation = _pair(context, "dilation", 1)
    padding = context.get("padding", 0)
    if padding == "same":
        spans = [step * (size - 1) for step, size in zip(dilation, weight.shape[2:], strict=True)]
        pads: Sequence[int] = [span // 2 for span in spans]
        if any(span % 2 for span in spans):
            pads = [*pads, *((span + 1) // 2 for span in spans)]
    elif padding == "valid":
        pads = [0, 0]
    else:
        pads = _pair(context, "padding", 0)
    return graph.conv2d(
        context.value("input"),
        weight,
        context.tensor("bias"),
        stride=_pair(context, "stride", 1),
        padding=pads,
        dilation=dilation,
        groups=context.get("groups", 1),
        name=context.name,
    )


@importer("aten.conv_transpose2d.input")
def conv_transpose2d(context: ImportContext, graph: GraphBuilder) -> str:
    """A transposed convolution with the same stride for rows and columns."""
    weight = context.tensor("weight")
    if weight is None or weight.ndim != 4:
        raise UnsupportedError("weight must have 4 dimensions")
    stride = _pair(context, "stride", 1)
    if stride[0] != stride[1]:
        raise UnsupportedError(f"stride={list(stride)}", closest="one stride for both axes")
    return graph.conv_transpose2d(
        context.value("input"),
        weight,
        context.tensor("bias"),
        stride=stride,
        padding=_pair(context, "padding", 0),
        output_padding=_pair(context, "output_padding", 0),
        dilation=_pair(context, "dilation", 1),
        groups=context.get("groups", 1),
        name=context.name,
    )


@importer("aten.batch_norm.default")
def batch_norm(context: ImportContext, graph: GraphBuilder) -> str:
    """Normalization by running statistics; weight and bias may be None."""
    mean, var = context.tensor("running_mean"), context.tensor("running_var")
    if context.get("training") or mean is None or var is None:
        raise UnsupportedError("statistics of the batch", closest="running statistics, eval()")
    weight, bias = context.tensor("weight"), context.tensor("bias")
    return graph.batch_norm(
        context.value("input"),
        np.ones_like(mean) if weight is None else weight,
        np.zeros_like(mean) if bias is None else bias,
        mean,
        var,
        eps=context.get("eps"),
        name=context.name,
    )


@importer("aten.relu.default")
def relu(context: ImportContext, graph: GraphBuilder) -> str:
    """``max(self, 0)``."""
    return graph.relu(context.value("self"), name=context.name)


@importer("aten.relu6.default")
def relu6(context: ImportContext, graph: GraphBuilder) -> str:
    """``min(max(self, 0), 6)``."""
    return graph.clamp(context.value("self"), 0, 6, name=context.name)


@importer("aten.leaky_relu.default")
def leaky_relu(context: ImportContext, graph: GraphBuilder) -> str:
    """A parametric ReLU with one constant slope."""
    slope = context.get("negative_slope", 0.01)
    return graph.prelu(context.value("self"), [slope], name=context.name)


@importer("aten.prelu.default")
def prelu(context: ImportContext, graph: GraphBuilder) -> str:
    """A parametric ReLU with one slope, or one for every channel."""
    weight = context.tensor("weight")
    if weight is None or weight.ndim != 1:
        raise UnsupportedError("weight must have 1 dimension")
    return graph.prelu(context.value("self"), weight, name=context.name)


@importer("aten.tanh.default")
def tanh(context: ImportContext, graph: GraphBuilder) -> str:
    """The hyperbolic tangent."""
    return graph.tanh(context.value("self"), name=context.name)


@importer("aten.hardtanh.default")
def hardtanh(context: ImportContext, graph: GraphBuilder) -> str:
    """A clamp to [min_val, max_val]; of ReLU6 too."""
    return _clamp(context, graph, context.get("min_val", -1), context.get("max_val", 1))


@importer("aten.clamp.default")
def clamp(context: ImportContext, graph: GraphBuilder) -> str:
    """A clamp to [min, max], either of which may be None."""
    return _clamp(context, graph, context.get("min"), context.get("max"))


@importer("aten.clamp_min.default")
def clamp_min(context: ImportContext, graph: GraphBuilder) -> str:
    """A clamp from below."""
    return _clamp(context, graph, context.get("min"), None)


@importer("aten.clamp_max.default")
def clamp_max(context: ImportContext, graph: GraphBuilder) -> str:
    """A clamp from above."""
    return _clamp(context, graph, None, context.get("max"))


@importer("aten.pixel_shuffle.default")
def pixel_shuffle(context: ImportContext, graph: GraphBuilder) -> str:
    """Channels to space."""
    factor = context.get("upscale_factor")
    return graph.pixel_shuffle(context.value("self"), factor, name=context.name)


@importer("aten.pixel_unshuffle.default")
def pixel_unshuffle(context: ImportContext, graph: GraphBuilder) -> str:
    """Space to channels."""
    factor = context.get("downscale_factor")
    return graph.pixel_unshuffle(context.value("self"), factor, name=context.name)


@importer("aten.add.Tensor")
def add(context: ImportContext, graph: GraphBuilder) -> str:
    """A sum, of two tensors or with constants."""
    return _sum(context, graph, 1, context.get("alpha", 1))


@importer("aten.sub.Tensor")
def sub(context: ImportContext, graph: GraphBuilder) -> str:
    """A difference, of two tensors or with constants."""
    return _sum(context, graph, 1, -context.get("alpha", 1))


@importer("aten.rsub.Scalar", "aten.rsub.Tensor")
def rsub(context: ImportContext, graph: GraphBuilder) -> str:
    """A difference in the other order."""
    return _sum(context, graph, -context.get("alpha", 1), 1)


@importer("aten.mul.Tensor")
def mul(context: ImportContext, graph: GraphBuilder) -> str:
    """A product, of two tensors or with constants."""
    for value, factor in (("self", "other"), ("other", "self")):
        constant = _constant(context, factor, value)
        if constant is not None:
            return graph.affine(_value(context, graph, value), constant, 0, name=context.name)
    return combined(context, graph, "mul", "self", "other")


@importer("aten.div.Tensor")
def div(context: ImportContext, graph: GraphBuilder) -> str:
    """A division by constants."""
    constant = _constant(context, "other", "self")
    if constant is None:
        raise UnsupportedError("division by a tensor", closest="division by constants")
    if not constant.all():
        raise UnsupportedError("division by zero")
    return graph.affine(_value(context, graph), 1 / constant, 0, name=context.name)


@importer("aten.max_pool2d.default")
def max_pool2d(context: ImportContext, graph: GraphBuilder) -> str:
    """Maxima of windows."""
    return graph.max_pool2d(
        context.value("self"),
        _pair(context, "kernel_size", 1),
        stride=_pair(context, "stride", 1) if context.get("stride") else None,
        padding=_pair(context, "padding", 0),
        dilation=_pair(context, "dilation", 1),
        ceil_mode=context.get("ceil_mode", False),
        name=context.name,
    )


@importer("aten.avg_pool2d.default")
def avg_pool2d(context: ImportContext, graph: GraphBuilder) -> str:
    """Means of windows."""
    return graph.avg_pool2d(
        context.value("self"),
        _pair(context, "kernel_size", 1),
        stride=_pair(context, "stride", 1) if context.get("stride") else None,
        padding=_pair(context, "padding", 0),
        ceil_mode=context.get("ceil_mode", False),
        count_include_pad=context.get("count_include_pad", True),
        divisor=context.get("divisor_override"),
        name=context.name,
    )


@importer("aten.adaptive_avg_pool2d.default")
def adaptive_avg_pool2d(context: ImportContext, graph: GraphBuilder) -> str:
    """Means of as many windows as there shall be outputs."""
    size = _pair(context, "output_size", 1)
    return graph.adaptive_avg_pool2d(context.value("self"), size, name=context.name)


@importer("aten.adaptive_max_pool2d.default")
def adaptive_max_pool2d(context: ImportContext, graph: GraphBuilder) -> str:
    """Maxima of one window per output; their indices are not supported."""
    size = _pair(context, "output_size", 1)
    return graph.adaptive_max_pool2d(context.value("self"), size, name=context.name)


@importer("aten.mean.dim")
def mean(context: ImportContext, graph: GraphBuilder) -> str | Placed:
    """The mean over height and width, or over the channels, which is a convolution."""
    axes = _axes(context, "dim")
    if axes == [2, 3]:
        value = graph.global_avg_pool(context.value("self"), name=context.name)
        return _reduced(context, value, axes)
    if axes != [1]:
        raise UnsupportedError(f"dim={context.get('dim')}", closest="dim=[2, 3] or dim=1")
    channels = context.shape("self", graph)[1] or 1
    weight = np.full((1, channels, 1, 1), 1 / channels, np.float32)
    value = graph.conv2d(context.value("self"), weight, name=context.name)
    return _reduced(context, value, axes)


@importer("aten.amax.default")
def amax(context: ImportContext, graph: GraphBuilder) -> str | Placed:
    """The maximum over height and width."""
    axes = _axes(context, "dim")
    if axes != [2, 3]:
        raise UnsupportedError(f"dim={context.get('dim')}", closest="dim=[2, 3]")
    return _reduced(
        context, graph.adaptive_max_pool2d(context.value("self"), 1, name=context.name), axes
    )


@importer("aten.argmax.default")
def argmax(context: ImportContext, graph: GraphBuilder) -> str | Placed:
    """The index of the largest channel, as a float."""
    axes = _axes(context, "dim")
    if axes != [1]:
        raise UnsupportedError(f"dim={context.get('dim')}", closest="dim=1")
    return _reduced(context, graph.argmax(context.value("self"), name=context.name), axes)


@importer("aten.softmax.int", "aten.log_softmax.int")
def softmax(context: ImportContext, graph: GraphBuilder) -> str:
    """The softmax over the channels; over another axis, which takes their place meanwhile."""
    axis = context.axis("self", context.get("dim"))
    log = "log" in context.call.target
    return softmax_over(graph, context.value("self"), axis, log=log, name=context.name)


@importer("aten.cat.default")
def cat(context: ImportContext, graph: GraphBuilder) -> str:
    """Concatenated tensors, along any axis."""
    values = context.value_list("tensors")
    axis = context.axis("tensors", context.get("dim", 0))
    return concatenated(graph, values, axis, context.name)


@importer("aten.slice.Tensor")
def slice_(context: ImportContext, graph: GraphBuilder) -> str:
    """A part of one axis."""
    axis = context.axis("self", context.get("dim", 0))
    bounds = {
        key: context.get(argument)
        for key, argument in (("start", "start"), ("stop", "end"), ("step", "step"))
    }
    if any(isinstance(bound, Other) for bound in bounds.values()):
        raise UnsupportedError("bounds known at run time only", closest="constant bounds")
    start, step = bounds["start"] or 0, bounds["step"] or 1
    stop = None if bounds["stop"] is None or bounds["stop"] >= _OPEN_END else bounds["stop"]
    if (start, stop, step) == (0, None, 1):
        return context.value("self")
    return sliced(context, graph, "self", axis, (start, stop, step))


@importer("aten.narrow.default")
def narrow(context: ImportContext, graph: GraphBuilder) -> str:
    """A part of one axis by its start and length."""
    start, length = context.get("start"), context.get("length")
    if not isinstance(start, int) or not isinstance(length, int):
        raise UnsupportedError("bounds known at run time only", closest="constant bounds")
    if start < 0:
        size = context.tensor_shape("self")[context.get("dim")]
        if size is None:
            raise UnsupportedError(
                "a start counted from the end of a dynamic dimension", closest="a slice"
            )
        start += size
    axis = context.axis("self", context.get("dim"))
    return sliced(context, graph, "self", axis, (start, start + length, 1))


@importer("aten.select.int")
def select(context: ImportContext, graph: GraphBuilder) -> Placed:
    """One index of a dimension, which is gone."""
    dimension, index = context.get("dim"), context.get("index")
    if not isinstance(index, int):
        raise UnsupportedError("an index known at run time only", closest="a constant")
    return _selected(context, graph, dimension, index)


@importer("aten.unbind.int")
def unbind(context: ImportContext, graph: GraphBuilder) -> list[str | Placed]:
    """All indices of a dimension."""
    dimension = context.get("dim", 0)
    return [
        _selected(context, graph, dimension, index) for index in range(len(context.call.outputs))
    ]


def _selected(context: ImportContext, graph: GraphBuilder, dimension: int, index: int) -> Placed:
    axis = context.axis("self", dimension)
    axes = tuple(other for other in context.axes("self") if other != axis)
    if context.tensor_shape("self")[dimension] == 1:
        return Placed(context.value("self"), axes)
    stop = None if index == -1 else index + 1
    return Placed(sliced(context, graph, "self", axis, (index, stop, 1)), axes)


@importer("aten.slice_scatter.default", "aten.select_scatter.default")
def scatter(context: ImportContext, graph: GraphBuilder) -> Placed:
    """A tensor with a part replaced by another tensor: a concatenation of the parts."""
    sizes = context.output_shape()
    dimension = context.get("dim", 0) % len(sizes)
    begin, stop = _scattered_part(context, sizes[dimension])
    axes = axes_of(len(sizes))
    if context.is_computed(context.get("self")):
        axes = context.axes("self")
    axis = axes[dimension]
    if axes.count(axis) > 1:
        raise UnsupportedError("a part of more than four dimensions")
    source = _scattered(context, graph, axes, axis, (begin, stop))
    bounds = ((0, begin), (stop, sizes[dimension]))
    rest = [(start, end) for start, end in bounds if start is not None and start != end]
    if not rest:
        return Placed(source, axes)
    if axis == 0:
        raise UnsupportedError(
            "a change of some samples of the batch", closest="the same change of all samples"
        )
    if context.is_computed(context.get("self")):
        value = context.value("self")
        parts = [(start, graph.slice(value, axis, start, end)) for start, end in rest]
    elif axis != 1:
        return Placed(_with_border(context, graph, source, axis, begin, sizes[dimension]), axes)
    else:
        numbers = _numbers(context, "self", axes, sizes[dimension])
        parts = [(start, filled(graph, source, numbers[start:end])) for start, end in rest]
    values = [value for _, value in sorted([*parts, (begin, source)])]
    return Placed(concatenated(graph, values, axis, context.name), axes)


def _with_border(
    context: ImportContext,
    graph: GraphBuilder,
    source: str,
    axis: int,
    begin: int,
    size: int | None,
) -> str:
    """An image that takes the place of a part of zeros, which become its padding."""
    border = context.tensor("self")
    inner = graph.shape(source)[axis]
    if border is None or border.any() or size is None or inner is None:
        raise UnsupportedError(
            "a part of a constant image", closest="a part of zeros, or of channels"
        )
    sides = [0, 0, 0, 0]  # top, left, bottom, right
    sides[axis - 2], sides[axis] = begin, size - inner - begin
    return graph.pad(source, sides, name=context.name)


def _scattered_part(context: ImportContext, size: int | None) -> tuple[int, int | None]:
    """First index, and last index plus one, of the changed part."""
    start, end = context.get("start", 0), context.get("end")
    if "index" in context.call.arguments:
        start = context.get("index")
        end = None if start == -1 else start + 1
    if context.get("step", 1) != 1 or any(isinstance(bound, Other) for bound in (start, end)):
        raise UnsupportedError(
            "a change of every second element, or of a part known at run time only",
            closest="parts of step 1 with constant bounds",
        )
    if size is not None:
        begin, stop, _ = slice(start, end).indices(size)
        return begin, stop
    if start == 0 and (end is None or end >= _OPEN_END):
        return 0, None
    raise UnsupportedError(
        "a change of a part of a dynamic dimension", closest="an export with fixed sizes"
    )


def _scattered(
    context: ImportContext,
    graph: GraphBuilder,
    axes: tuple[int, ...],
    axis: int,
    part: tuple[int, int | None],
) -> str:
    """The value that takes the place of a part, its dimensions on the same axes."""
    if "index" in context.call.arguments:
        axes = tuple(other for other in axes if other != axis)
    if context.is_computed(context.get("src")):
        return moved(graph, Placed(context.value("src"), context.axes("src")), axes)
    old = context.value("self")
    if axis != 0:
        old = graph.slice(old, axis, *part)
    return filled(graph, old, _numbers(context, "src", axes, graph.shape(old)[1]))


def _numbers(
    context: ImportContext, argument: str, axes: Sequence[int], count: int | None
) -> Array:
    """A constant as one number for every channel."""
    tensor = context.tensor(argument)
    assert tensor is not None
    return np.broadcast_to(by_channel(tensor, axes), count or 1)


@importer("aten.fill.Scalar", "aten.fill.Tensor", "aten.zero.default")
def fill(context: ImportContext, graph: GraphBuilder) -> str:
    """One number everywhere."""
    number = context.get("value", 0)
    if isinstance(number, Ref):
        constant = context.tensor("value")
        assert constant is not None
        number = float(constant.item())
    return clamped(graph, context.value("self"), number, number, context.name)


@importer("aten.copy.default")
def copy(context: ImportContext, graph: GraphBuilder) -> str | Placed:
    """The elements of another tensor, or of a constant, in the shape of the first one."""
    source = context.get("src")
    if not isinstance(source, Ref) or not context.is_computed(source):
        constant = _constant(context, "src", "self")
        assert constant is not None
        value = context.value("self")
        return filled(graph, value, np.broadcast_to(constant, graph.shape(value)[1] or 1))
    return _repeated(context, graph, "src")


@importer("aten.expand.default", "aten.expand_as.default", "aten.broadcast_to.default")
def expand(context: ImportContext, graph: GraphBuilder) -> Placed:
    """A tensor repeated along dimensions of size 1."""
    return _repeated(context, graph, "self")


@importer("aten.repeat.default", "aten.tile.default")
def repeat(context: ImportContext, graph: GraphBuilder) -> Placed:
    """Copies of a tensor, one after another along each dimension."""
    axes = context.axes("self")
    counts = context.get("repeats", context.get("dims"))
    if len(counts) != len(axes) or not all(1 <= n <= _MAX_COPIES for n in counts):
        raise UnsupportedError(
            f"repeats={counts} of {len(axes)} dimensions",
            closest=f"from 1 to {_MAX_COPIES} for each",
        )
    value = context.value("self")
    for dimension, count in enumerate(counts):
        if count > 1:
            axis = context.axis("self", dimension)
            value = concatenated(graph, [value] * count, axis, context.name)
    return Placed(value, axes)


def _repeated(context: ImportContext, graph: GraphBuilder, argument: str) -> Placed:
    """A tensor in the shape of the output, which may have more dimensions before its own."""
    sizes = context.output_shape()
    if len(sizes) not in AXES:
        raise UnsupportedError(f"a tensor of {len(sizes)} dimensions", closest="up to four")
    axes = axes_of(len(sizes))
    own = context.axes(argument)
    value = moved(graph, Placed(context.value(argument), own), axes[len(axes) - len(own) :])
    return Placed(expanded(graph, value, as_image(sizes), context.name), axes)


@importer("aten.chunk.default", "aten.split.Tensor", "aten.split_with_sizes.default")
def split(context: ImportContext, graph: GraphBuilder) -> list[str | Placed]:
    """All parts of one axis."""
    axis = context.axis("self", context.get("dim", 0))
    size = context.shape("self", graph)[axis]
    if size is None:
        raise UnsupportedError("parts of a size known at run time only", closest="dim=1")
    lengths = context.get("split_sizes", context.get("split_size"))
    if lengths is None:
        lengths = -(-size // context.get("chunks"))
    if isinstance(lengths, int):
        lengths = [min(lengths, size - start) for start in range(0, size, lengths)]
    return split_into(context, graph, "self", axis, lengths)


@importer("aten.pad.default")
def pad(context: ImportContext, graph: GraphBuilder) -> str:
    """Pads images: with zeros, or with reflected or repeated pixels."""
    modes = {"constant": "zeros", "reflect": "reflect", "replicate": "replicate"}
    mode, value = context.get("mode", "constant"), context.get("value")
    sides = context.get("pad")
    if mode not in modes or value not in (None, 0):
        raise UnsupportedError(
            f"mode={mode!r}, value={value}", closest="zeros, 'reflect' or 'replicate'"
        )
    rank = len(context.axes("self"))
    if not isinstance(sides, list) or len(sides) > 4 or rank != 4:
        raise UnsupportedError(f"pad={sides} of {rank} dimensions", closest="the pad of an image")
    left, right, top, bottom = [*sides, 0, 0][:4]
    return graph.pad(
        context.value("self"), (top, left, bottom, right), mode=modes[mode], name=context.name
    )


@importer(
    "aten.upsample_nearest2d.vec",
    "aten.upsample_nearest2d.default",
    "aten._upsample_nearest_exact2d.vec",
    "aten._upsample_nearest_exact2d.default",
    "aten.upsample_bilinear2d.vec",
    "aten.upsample_bilinear2d.default",
)
def upsample(context: ImportContext, graph: GraphBuilder) -> str:
    """Resizing to a size, or by scale factors."""
    scales = context.get("scale_factors")
    size = context.get("output_size")
    if size is not None and not (
        isinstance(size, list) and all(isinstance(item, int) for item in size)
    ):
        raise UnsupportedError("a size known at run time only", closest="scale_factor")
    if size is None and not isinstance(scales, list):
        raise UnsupportedError("neither size nor scale_factor")
    bilinear = "bilinear" in context.call.target
    nearest = "nearest-exact" if "exact" in context.call.target else "nearest"
    mode = "bilinear" if bilinear else nearest
    align_corners = bilinear and context.get("align_corners", False)
    argument = "input" if "input" in context.call.arguments else "self"
    if size is None and not align_corners:
        sizes = context.shape(argument, graph)[2:]
        scales = [_snapped(n, scale, mode) for n, scale in zip(sizes, scales, strict=True)]
    snaps = size is None and not align_corners and None in context.shape(argument, graph)[2:]
    return graph.resize(
        context.value(argument),
        size=size,
        scale=None if size is not None else scales,
        mode=mode,
        align_corners=align_corners,
        snap_scale=snaps and any(_may_snap(scale, mode) for scale in scales),
        name=context.name,
    )


def _snapped(size: int | None, scale: float, mode: str) -> float:
    """The scale that PyTorch uses for an axis in place of one that gives the same size."""
    factor = 0 if size is None else math.floor(size * scale) / size
    return factor if factor in _snap_scales(mode) else scale


def _may_snap(scale: float, mode: str) -> bool:
    """Whether another scale takes its place for some sizes. A single pixel is always repeated."""
    return any(factor < scale < factor + 0.5 for factor in _snap_scales(mode))


def _snap_scales(mode: str) -> tuple[float, ...]:
    return {"nearest": (1.0, 2.0), "bilinear": (1.0,)}.get(mode, ())


@importer(
    "aten.flatten.using_ints",
    "aten.view.default",
    "aten.view_as.default",
    "aten.reshape.default",
    "aten.unflatten.int",
    "aten.squeeze.default",
    "aten.squeeze.dim",
    "aten.squeeze.dims",
    "aten.unsqueeze.default",
)
def view(context: ImportContext, graph: GraphBuilder) -> Placed:
    """The same elements with other dimensions."""
    return rearranged(context, graph, "self", context.output_shape())


@importer(
    "aten.permute.default",
    "aten.transpose.int",
    "aten.transpose.default",
    "aten.swapaxes.default",
    "aten.swapdims.default",
    "aten.mT.default",
)
def permute(context: ImportContext, graph: GraphBuilder) -> Placed:
    """The dimensions in another order."""
    sizes = context.tensor_shape("self")
    order = context.get("dims")
    if order is None:
        order = list(range(len(sizes)))
        one = context.get("dim0", context.get("axis0", -1))
        other = context.get("dim1", context.get("axis1", -2))
        order[one], order[other] = order[other], order[one]
    return rearranged(context, graph, "self", sizes, [i % len(sizes) for i in order])


@importer("aten.linear.default")
def linear(context: ImportContext, graph: GraphBuilder) -> str:
    """A matrix product over the channels of single pixels, which is a 1x1 convolution."""
    weight = context.tensor("weight")
    value = context.value("input")
    if weight is None or weight.ndim != 2:
        raise UnsupportedError("weight must have 2 dimensions")
    if context.shape("input", graph)[2:] != (1, 1):
        raise UnsupportedError("an input that is not a vector", closest="linear after flatten")
    bias = context.tensor("bias")
    return graph.conv2d(value, weight[:, :, None, None], bias, name=context.name)


@importer("aten.dropout.default", "aten.feature_dropout.default", "aten.alpha_dropout.default")
def dropout(context: ImportContext, graph: GraphBuilder) -> str:
    """Refuses dropout in training mode; in eval mode it is not part of a program."""
    raise UnsupportedError("dropout in training mode", closest="eval()")


@importer("aten.clone.default", "aten.contiguous.default")
def clone(context: ImportContext, graph: GraphBuilder) -> str:
    """The same elements: no tensor of a program ever changes."""
    return context.value("self")


@importer(
    "aten.to.dtype",
    "aten.to.device",
    "aten.to.dtype_layout",
    "aten.to.other",
    "aten._to_copy.default",
    "aten.type_as.default",
)
def cast(context: ImportContext, graph: GraphBuilder) -> str:
    """A cast to another floating-point type, all of which are one to a graph."""
    if not np.issubdtype(context.output_dtype(), np.floating):
        raise UnsupportedError("a cast to integers", closest="a floating-point type")
    return context.value("self")


def _clamp(context: ImportContext, graph: GraphBuilder, lo: float | None, hi: float | None) -> str:
    """A clamp whose missing bounds are infinite."""
    if not all(bound is None or isinstance(bound, (int, float)) for bound in (lo, hi)):
        raise UnsupportedError(f"bounds must be numbers, got {lo!r} and {hi!r}")
    low = -math.inf if lo is None else lo
    high = math.inf if hi is None else hi
    return clamped(graph, context.value("self"), low, high, context.name)


def _sum(context: ImportContext, graph: GraphBuilder, first: float, second: float) -> str:
    """``first * self + second * other``."""
    for value, gain, term, factor in (
        ("self", first, "other", second),
        ("other", second, "self", first),
    ):
        constant = _constant(context, term, value)
        if constant is not None:
            shift = factor * constant
            return graph.affine(_value(context, graph, value), gain, shift, name=context.name)
    if (first, second) == (1, 1):
        return combined(context, graph, "add", "self", "other")
    if (first, second) == (1, -1):
        return combined(context, graph, "sub", "self", "other")
    if (first, second) == (-1, 1):
        return combined(context, graph, "sub", "other", "self")
    return combined(context, graph, "add", "self", "other", (first, second))


def _constant(context: ImportContext, argument: str, other: str) -> Array | None:
    """A number, or one for every channel of the other operand; None where it is computed."""
    content = context.get(argument)
    if isinstance(content, (int, float)):
        return np.full(1, content, np.float32)
    if not isinstance(content, Ref) or context.is_computed(content):
        return None
    tensor = context.tensor(argument)
    assert tensor is not None
    axes = context.axes(other)
    if tensor.ndim > len(axes):
        raise UnsupportedError(
            f"a constant of {tensor.ndim} dimensions", closest=f"up to {len(axes)}"
        )
    return by_channel(tensor, axes[len(axes) - tensor.ndim :])


def _value(context: ImportContext, graph: GraphBuilder, argument: str = "self") -> str:
    """A value whose shape is known, as arithmetic with constants needs it."""
    context.shape(argument, graph)
    return context.value(argument)


def _axes(context: ImportContext, argument: str) -> list[int]:
    """The axes that an argument lists, or the one it is."""
    dimensions = context.get(argument)
    if dimensions is None:
        return []
    dimensions = dimensions if isinstance(dimensions, list) else [dimensions]
    return sorted(context.axis("self", dimension) for dimension in dimensions)


def _reduced(context: ImportContext, value: str, axes: Sequence[int]) -> str | Placed:
    """A value whose `axes` have become 1, and are dimensions of the tensor only if so asked."""
    if context.get("keepdim"):
        return value
    return Placed(value, tuple(axis for axis in context.axes("self") if axis not in axes))


def _pair(context: ImportContext, argument: str, default: int) -> Sequence[int]:
    """A list of two integers; operators accept one for both."""
    value = context.get(argument, default)
    items = value if isinstance(value, list) else [value]
    if len(items) not in (1, 2) or not all(isinstance(item, int) for item in items):
        raise UnsupportedError(f"{argument} must be two constant integers, got {value!r}")
    return items * 2 if len(items) == 1 else items
