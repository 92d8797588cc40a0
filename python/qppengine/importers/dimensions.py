# SPDX-License-Identifier: Apache-2.0
"""What importers of all formats do alike: mostly to bring dimensions where the graph wants them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from qppengine.errors import UnsupportedError
from qppengine.importers.program import axes_of
from qppengine.importers.registry import ImportContext, Placed, moved

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qppengine.builder import GraphBuilder
    from qppengine.ir import Array, Shape

_FLOAT32_MAX = float(np.finfo(np.float32).max)
_MAX_DIMENSIONS = 7  # of a rearrangement, the batch among them


def clamped(graph: GraphBuilder, value: str, low: float, high: float, name: str) -> str:
    """A clamp in whose place infinite bounds become the largest numbers; relu where it is one."""
    if low == 0 and high >= _FLOAT32_MAX:
        return graph.relu(value, name=name)
    return graph.clamp(value, max(low, -_FLOAT32_MAX), min(high, _FLOAT32_MAX), name=name)


def softmax_over(graph: GraphBuilder, value: str, axis: int, *, log: bool, name: str) -> str:
    """The softmax over an axis, which takes the place of the channels meanwhile."""
    if axis == 1:
        return graph.softmax(value, log=log, name=name)
    front = _swap_with_channels(graph, value, axis)
    return _swap_with_channels(graph, graph.softmax(front, log=log, name=name), axis)


def concatenated(graph: GraphBuilder, values: Sequence[str], axis: int, name: str) -> str:
    """Concatenated values; another axis is exchanged with the channels for that."""
    if axis == 1:
        return graph.concat(*values, name=name)
    fronts = [_swap_with_channels(graph, value, axis) for value in values]
    return _swap_with_channels(graph, graph.concat(*fronts, name=name), axis)


def sliced(
    context: ImportContext,
    graph: GraphBuilder,
    argument: str,
    axis: int,
    part: tuple[int, int | None, int],
) -> str:
    """A part of one axis: start, stop and step."""
    if axis == 0 or context.axes(argument).count(axis) > 1:
        raise UnsupportedError("a part of the batch", closest="a part of channels, rows or columns")
    value = context.value(argument)
    return graph.slice(value, axis, *part, name=graph.unique(context.name))


def split_into(
    context: ImportContext, graph: GraphBuilder, argument: str, axis: int, lengths: Sequence[int]
) -> list[str | Placed]:
    """Consecutive parts of one axis."""
    ends = np.cumsum(lengths).tolist()
    parts = zip(ends, lengths, strict=True)
    return [sliced(context, graph, argument, axis, (end - length, end, 1)) for end, length in parts]


def combined(
    context: ImportContext,
    graph: GraphBuilder,
    op: str,
    first: str,
    second: str,
    gains: tuple[float, float] = (1, 1),
) -> str:
    """The sum, difference or product ("add", "sub", "mul") of two tensors times numbers.

    Either is repeated along axes where only its size is 1.
    """
    x, y = (
        value if gain == 1 else graph.affine(value, gain, 0)
        for value, gain in zip(_aligned(context, graph, first, second), gains, strict=True)
    )
    shapes = graph.shape(x), graph.shape(y)
    channels = max(shape[1] or 1 for shape in shapes)
    x, y = (
        expanded(graph, value, (shape[0], channels, *shape[2:]))
        for value, shape in zip((x, y), shapes, strict=True)
    )
    sizes = shapes[0][2:], shapes[1][2:]
    if (1, 1) not in sizes and sizes[0] != sizes[1]:
        full = [b if a == 1 else a for a, b in zip(*sizes, strict=True)]
        x, y = (expanded(graph, value, (*graph.shape(value)[:2], *full)) for value in (x, y))
    if sizes[0] == (1, 1) != sizes[1]:  # the graph takes one number per channel second
        if op == "sub":
            return graph.add(graph.affine(y, -1, 0), x, name=context.name)
        x, y = y, x
    function = {"add": graph.add, "sub": graph.sub, "mul": graph.mul}[op]
    return function(x, y, name=context.name)


def _aligned(
    context: ImportContext, graph: GraphBuilder, first: str, second: str
) -> tuple[str, str]:
    """Two values whose dimensions are on the same axes, counted from the last."""
    values = [context.value(argument) for argument in (first, second)]
    axes = [context.axes(argument) for argument in (first, second)]
    sizes = [context.tensor_shape(argument) for argument in (first, second)]
    short = 0 if len(axes[0]) < len(axes[1]) else 1
    rank = len(axes[short])
    targets = axes[1 - short][len(axes[1 - short]) - rank :]
    if len(set(targets)) < rank or len(set(axes[1 - short])) < len(axes[1 - short]):
        # Several dimensions share an axis, where only tensors of one shape match.
        if sizes[0] != sizes[1] or axes[0] != axes[1]:
            raise UnsupportedError(
                f"operands {_text(sizes[0])} and {_text(sizes[1])}",
                closest="two of one shape, or of up to four dimensions",
            )
    else:
        values[short] = moved(graph, Placed(values[short], axes[short]), targets)
    for dimension, pair in enumerate(zip(*(reversed(shape) for shape in sizes), strict=False)):
        axis = axes[1 - short][-1 - dimension]
        if pair.count(1) == 1 and all(graph.shape(value)[axis] is None for value in values):
            raise UnsupportedError(
                f"operands {_text(sizes[0])} and {_text(sizes[1])}, one repeated along a dynamic "
                "dimension",
                closest="an export with fixed sizes",
            )
    batches = {graph.shape(value)[0] for value in values}
    if len(batches - {None}) > 1:
        raise UnsupportedError(
            f"operands {_text(sizes[0])} and {_text(sizes[1])}", closest="two of one batch size"
        )
    return values[0], values[1]


def expanded(graph: GraphBuilder, value: str, target: Shape, name: str | None = None) -> str:
    """A value repeated along the axes where its size is 1, up to a shape ``[N, C, H, W]``.

    A convolution repeats channels, and rows and columns are those of an enlarged image.
    """
    shape = graph.shape(value)
    if any(have not in (want, 1) for have, want in zip(shape, target, strict=True)):
        raise UnsupportedError(
            f"{_text(shape)} repeated to {_text(target)}",
            closest="sizes of 1, or an export with fixed sizes",
        )
    if shape[0] != target[0]:
        raise UnsupportedError("samples repeated", closest="channels or pixels")
    if shape[1] != target[1]:
        weight = np.ones((target[1] or 1, 1, 1, 1), np.float32)
        value = graph.conv2d(value, weight, name=name)
    if shape[2:] != target[2:]:
        size = [n for n in target[2:] if n is not None]
        if len(size) < 2:
            raise UnsupportedError(
                f"{_text(shape)} repeated to {_text(target)}", closest="an export with fixed sizes"
            )
        value = graph.resize(value, size=size, name=name)
    return value


def by_channel(tensor: Array, axes: Sequence[int]) -> Array:
    """A constant whose dimensions are on these axes, as one number, or one for every channel."""
    if np.isnan(tensor).any():
        raise UnsupportedError("a constant that holds NaN", closest="finite numbers")
    for dimension, axis in enumerate(axes):
        first = np.take(tensor, [0], dimension)
        if axis != 1 and not (tensor == first).all():
            raise UnsupportedError(
                f"a constant of shape {list(tensor.shape)} whose elements differ between pixels",
                closest="one number, or one per channel",
            )
        tensor = tensor if axis == 1 else first
    return np.ravel(tensor)


def filled(graph: GraphBuilder, like: str, channels: Array, name: str | None = None) -> str:
    """An image as large as another, with the given number everywhere in each channel."""
    weight = np.zeros((len(channels), graph.shape(like)[1] or 1, 1, 1), np.float32)
    return graph.conv2d(like, weight, channels, name=name)


def rearranged(
    context: ImportContext,
    graph: GraphBuilder,
    argument: str,
    sizes: Sequence[int | None],
    order: Sequence[int] | None = None,
) -> Placed:
    """A tensor reshaped to `sizes`, whose dimensions are then permuted."""
    order = list(range(len(sizes))) if order is None else order
    own = context.tensor_shape(argument)
    if not sizes or sizes[0] != own[0] or order[0] != 0 or not 1 < len(sizes) <= _MAX_DIMENSIONS:
        result = _text([sizes[index] for index in order])
        raise UnsupportedError(
            f"sizes {_text(own)} to {result}", closest="a batch that stays the first dimension"
        )
    view, places = list(sizes[1:]), [index - 1 for index in order[1:]]
    if len(view) == 2:  # the second is on the last axis
        view, places = [view[0], 1, view[1]], [2 * places[0], 1, 2 * places[1]]
    if None in view and (None in view[:-2] or len(view) < 3 or list(own[-2:]) != view[-2:]):
        raise UnsupportedError(
            f"sizes {_text(own)} to {_text(sizes)}, known at run time only",
            closest="an export with fixed sizes",
        )
    value = context.in_order(argument, graph)
    shape = context.shape(argument, graph)
    if any(n is None for n in view):
        view[-2:] = [None, None]
    target = [math.prod(n or 1 for n in view[:-2]), *view[-2:]] if len(view) > 2 else [*view, 1, 1]
    axes = axes_of(len(sizes))
    if places == sorted(places) and list(shape[1:]) == target:
        return Placed(value, axes)
    if len(view) == 1:
        return Placed(graph.flatten(value, name=context.name), axes)
    return Placed(graph.rearrange(value, view, places, name=context.name), axes)


def _swap_with_channels(graph: GraphBuilder, value: str, axis: int) -> str:
    """An image whose channels and rows, or columns, are exchanged."""
    if axis == 0:
        raise UnsupportedError("dimension 0, the batch", closest="dimension 1")
    _, *sizes = graph.shape(value)
    if None in sizes:
        raise UnsupportedError(
            f"axis {axis} of an image with dynamic dimensions", closest="an export with fixed sizes"
        )
    order = [0, 1, 2]
    order[0], order[axis - 1] = order[axis - 1], order[0]
    return graph.rearrange(value, sizes, order)


def _text(sizes: Sequence[int | None]) -> list[int | str]:
    return ["any" if size is None else size for size in sizes]
