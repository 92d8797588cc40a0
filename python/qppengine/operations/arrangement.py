# SPDX-License-Identifier: Apache-2.0
"""Operations that only move elements.

``concat`` joins the channels of any number of inputs. ``slice`` takes a part of axis 1, 2 or 3 as
Python's slices do; ``stop`` is None for the end. ``pad`` adds pixels at the top, left, bottom and
right, in ``mode`` "zeros", "reflect" or "replicate"; negative ``padding`` crops. ``flatten`` makes
``[N, C * H * W, 1, 1]``. ``rearrange`` sees each image of the batch with the dimensions ``view``,
whose last two may be None for its height and width, puts them in ``order``, and merges the first
of more than three or appends dimensions of size 1.
"""

from __future__ import annotations

import math
from functools import wraps
from typing import TYPE_CHECKING, Any

import numpy as np

from qppengine.errors import ShapeError
from qppengine.ir import channels_of
from qppengine.operations.attributes import INTEGER, Attribute, choice, integer, is_int, is_list
from qppengine.operations.schema import OpSchema

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from qppengine.ir import Array, Node, Shape
    from qppengine.operations.onnx_context import OnnxContext

PAD_MODES = ("zeros", "reflect", "replicate")

_MAX_DIMENSIONS = 6  # of a rearrangement


def _contiguous(compute: Callable[..., Any]) -> Callable[..., Array]:
    """Returns an array of its own where NumPy returns a view."""

    @wraps(compute)
    def compute_contiguous(node: Node, *inputs: Array) -> Array:
        return np.ascontiguousarray(compute(node, *inputs))

    return compute_contiguous


# ----------------------------------------------------------------------------- concat, slice, pad


def _infer_concat(node: Node, shapes: Sequence[Shape]) -> Shape:
    batch, _, height, width = shapes[0]
    for shape in shapes:
        known = list(zip(shape, (batch, None, height, width), strict=True))
        if any(a is not None and b is not None and a != b for a, b in known):
            raise ShapeError(
                f"{node.name}: expected inputs that differ in channels only, got "
                f"{', '.join(str(list(s)) for s in shapes)}"
            )
        batch, _, height, width = (b if a is None else a for a, b in known)
    return (batch, sum(shape[1] or 0 for shape in shapes), height, width)


def _infer_slice(node: Node, shapes: Sequence[Shape]) -> Shape:
    axis = node.attributes["axis"]
    shape = list(shapes[0])
    if (size := shape[axis]) is not None:
        start, stop, step = (node.attributes[key] for key in ("start", "stop", "step"))
        shape[axis] = len(range(*slice(start, stop, step).indices(size)))
        if shape[axis] == 0:
            raise _empty_output(node, size)
    return tuple(shape)


@_contiguous
def _compute_slice(node: Node, x: Array) -> Any:
    part = slice(*(node.attributes[key] for key in ("start", "stop", "step")))
    return x[tuple(part if axis == node.attributes["axis"] else slice(None) for axis in range(4))]


def _export_slice(context: OnnxContext) -> None:
    attributes = context.node.attributes
    stop = attributes["stop"]
    part = (
        attributes["start"],
        2**31 if stop is None else stop,
        attributes["axis"],
        attributes["step"],
    )
    names = ("starts", "ends", "axes", "steps")
    context.add("Slice", *context.inputs, *map(context.integers, names, ([n] for n in part)))


def _check_pad(node: Node) -> Iterator[str]:
    if node.attributes["mode"] != "zeros" and min(node.attributes["padding"]) < 0:
        yield "negative padding belongs to mode 'zeros'"


def _infer_pad(node: Node, shapes: Sequence[Shape]) -> Shape:
    shape = list(shapes[0])
    top, left, bottom, right = node.attributes["padding"]
    for axis, before, after in ((2, top, bottom), (3, left, right)):
        if (size := shape[axis]) is None:
            continue
        shape[axis] = size + before + after
        if size + min(before, 0) + min(after, 0) < 1:
            raise _empty_output(node, size)
        if node.attributes["mode"] == "reflect" and max(before, after) >= size:
            raise ShapeError(
                f"{node.name}: {node.inputs[0]!r} of size {size} has no {max(before, after)} "
                "pixels to reflect"
            )
    return tuple(shape)


@_contiguous
def _compute_pad(node: Node, x: Array) -> Any:
    top, left, bottom, right = node.attributes["padding"]
    rows = slice(max(-top, 0), x.shape[2] - max(-bottom, 0))
    columns = slice(max(-left, 0), x.shape[3] - max(-right, 0))
    widths = ((0, 0), (0, 0), (max(top, 0), max(bottom, 0)), (max(left, 0), max(right, 0)))
    part = x[:, :, rows, columns]
    if node.attributes["mode"] == "zeros":
        return np.pad(part, widths)
    return np.pad(part, widths, "reflect" if node.attributes["mode"] == "reflect" else "edge")


def _export_pad(context: OnnxContext) -> None:
    top, left, bottom, right = context.node.attributes["padding"]
    pads = context.integers("pads", [0, 0, top, left, 0, 0, bottom, right])
    modes = {"zeros": "constant", "reflect": "reflect", "replicate": "edge"}
    context.add("Pad", *context.inputs, pads, mode=modes[context.node.attributes["mode"]])


def _empty_output(node: Node, size: int) -> ShapeError:
    return ShapeError(f"{node.name}: the output would be empty: {node.inputs[0]!r} has size {size}")


# ------------------------------------------------------------------------------ flatten, rearrange


def _infer_flatten(node: Node, shapes: Sequence[Shape]) -> Shape:
    batch, _, height, width = shapes[0]
    if height is None or width is None:
        raise ShapeError(f"{node.name}: {node.inputs[0]!r} must have a known height and width")
    return (batch, channels_of(shapes[0]) * height * width, 1, 1)


@_contiguous
def _compute_flatten(node: Node, x: Array) -> Any:
    return x.reshape(len(x), -1, 1, 1)


def _export_flatten(context: OnnxContext) -> None:
    context.add("Reshape", *context.inputs, context.integers("shape", [0, -1, 1, 1]))


def _is_view(value: Any) -> bool:
    if not is_list(value, range(1, _MAX_DIMENSIONS + 1), lambda n: n is None or is_int(n, 1)):
        return False
    unknown = [place for place, n in enumerate(value) if n is None]
    return not unknown or (len(value) > 2 and unknown == [len(value) - 2, len(value) - 1])


def _is_order(value: Any) -> bool:
    is_integers = is_list(value, range(1, _MAX_DIMENSIONS + 1), is_int)
    return is_integers and sorted(value) == list(range(len(value)))


def _check_rearrange(node: Node) -> Iterator[str]:
    view, order = (node.attributes[key] for key in ("view", "order"))
    if len(view) != len(order):
        yield f"view and order must have one length, got {len(view)} and {len(order)}"


def _infer_rearrange(node: Node, shapes: Sequence[Shape]) -> Shape:
    batch, channels, height, width = shapes[0]
    view: list[int | None] = list(node.attributes["view"])
    if None in view:
        fits = math.prod(n or 1 for n in view[:-2]) == channels
        view[-2:] = [height, width]
    else:
        known = math.prod(n or 0 for n in shapes[0][1:])
        fits = known == math.prod(n or 0 for n in view)
    if not fits:
        raise ShapeError(
            f"{node.name}: {node.inputs[0]!r} of shape {list(shapes[0])} cannot be reshaped to "
            f"{node.attributes['view']}"
        )
    sizes = [view[index] for index in node.attributes["order"]]
    merged, kept = sizes[: len(sizes) - 2 if len(sizes) > 3 else 1], sizes[-2:]
    if len(sizes) <= 3:
        kept = [*sizes[1:], *[1] * (3 - len(sizes))]
    if None in merged:
        raise ShapeError(f"{node.name}: channels would depend on the size of {node.inputs[0]!r}")
    return (batch, math.prod(n or 1 for n in merged), *kept)


@_contiguous
def _compute_rearrange(node: Node, x: Array) -> Any:
    view, order = node.attributes["view"], node.attributes["order"]
    sizes = [*view[:-2], *x.shape[2:]] if None in view else view
    y = x.reshape(len(x), *sizes).transpose(0, *(index + 1 for index in order))
    _, *sizes = y.shape
    while len(sizes) > 3:
        sizes = [sizes[0] * sizes[1], *sizes[2:]]
    return y.reshape(len(x), *sizes, *[1] * (3 - len(sizes)))


def _export_rearrange(context: OnnxContext) -> None:
    view, order = (context.node.attributes[key] for key in ("view", "order"))
    _reorder(context, context.inputs[0], view, order)


def _reorder(
    context: OnnxContext, tensor: str, view: Sequence[int | None], order: Sequence[int]
) -> None:
    """Reshapes images to `view`, permutes the dimensions, and merges them to three."""
    viewed = _reshape(context, tensor, view, "viewed")
    moved = context.add("Transpose", viewed, perm=[0, *(index + 1 for index in order)])
    sizes = [view[index] for index in order]
    if len(sizes) > 3:
        sizes = [math.prod(n or 1 for n in sizes[:-2]), *sizes[-2:]]
    _reshape(context, moved, [*sizes, *[1] * (3 - len(sizes))], "merged")


def _reshape(context: OnnxContext, tensor: str, sizes: Sequence[int | None], key: str) -> str:
    """The tensor with other dimensions after the batch; two that are None keep its last two."""
    known = context.integers(f"{key}/sizes", [n for n in sizes if n is not None])
    parts = [context.add("Shape", tensor, start=0, end=1, key=f"{key}/batch"), known]
    if None in sizes:
        parts.append(context.add("Shape", tensor, start=-2, key=f"{key}/last"))
    shape = context.add("Concat", *parts, axis=0, key=f"{key}/shape")
    return context.add("Reshape", tensor, shape, key=key)


# ---------------------------------------------------------------------------------- pixel shuffle


def _infer_pixel_shuffle(node: Node, shapes: Sequence[Shape]) -> Shape:
    batch, channels, *size = shapes[0]
    factor: int = node.attributes["upscale_factor"]
    if channels_of(shapes[0]) % factor**2:
        raise ShapeError(
            f"{node.name}: upscale_factor {factor} needs a multiple of {factor**2} channels, "
            f"{node.inputs[0]!r} has {channels}"
        )
    return (
        batch,
        channels_of(shapes[0]) // factor**2,
        *(None if n is None else n * factor for n in size),
    )


@_contiguous
def _compute_pixel_shuffle(node: Node, x: Array) -> Any:
    factor = node.attributes["upscale_factor"]
    batch, channels, height, width = x.shape
    blocks = x.reshape(batch, channels // factor**2, factor, factor, height, width)
    pixels = blocks.transpose(0, 1, 4, 2, 5, 3)
    return pixels.reshape(batch, -1, height * factor, width * factor)


def _export_pixel_shuffle(context: OnnxContext) -> None:
    factor = context.node.attributes["upscale_factor"]
    context.add("DepthToSpace", *context.inputs, blocksize=factor, mode="CRD")


def _infer_pixel_unshuffle(node: Node, shapes: Sequence[Shape]) -> Shape:
    batch, _, *size = shapes[0]
    factor: int = node.attributes["downscale_factor"]
    if any(n is not None and n % factor for n in size):
        raise ShapeError(
            f"{node.name}: downscale_factor {factor} needs a multiple of {factor} rows and "
            f"columns, {node.inputs[0]!r} has {size}"
        )
    return (
        batch,
        channels_of(shapes[0]) * factor**2,
        *(None if n is None else n // factor for n in size),
    )


@_contiguous
def _compute_pixel_unshuffle(node: Node, x: Array) -> Any:
    factor = node.attributes["downscale_factor"]
    batch, depth, height, width = x.shape
    blocks = x.reshape(batch, depth, height // factor, factor, width // factor, factor)
    channels = blocks.transpose(0, 1, 3, 5, 2, 4)
    return channels.reshape(batch, -1, height // factor, width // factor)


def _export_pixel_unshuffle(context: OnnxContext) -> None:
    factor = context.node.attributes["downscale_factor"]
    blocks = context.add("SpaceToDepth", *context.inputs, blocksize=factor)
    # Of these blocks the channels come last.
    _reorder(context, blocks, (factor**2, context.input_shape[1], None, None), (1, 0, 2, 3))


OPERATIONS = (
    OpSchema(
        name="concat",
        compute=_contiguous(lambda node, *inputs: np.concatenate(inputs, axis=1)),
        export=lambda context: context.add("Concat", *context.inputs, axis=1),
        inputs=None,
        infer_shape=_infer_concat,
    ),
    OpSchema(
        name="slice",
        compute=_compute_slice,
        export=_export_slice,
        attributes={
            "axis": integer(1, 3),
            "start": INTEGER,
            "stop": Attribute("an integer or None", lambda n: n is None or is_int(n)),
            "step": integer(1),
        },
        infer_shape=_infer_slice,
    ),
    OpSchema(
        name="pad",
        compute=_compute_pad,
        export=_export_pad,
        attributes={
            "padding": Attribute("four integers", lambda value: is_list(value, (4,), is_int)),
            "mode": choice(*PAD_MODES),
        },
        check=_check_pad,
        infer_shape=_infer_pad,
    ),
    OpSchema(
        name="flatten",
        compute=_compute_flatten,
        export=_export_flatten,
        infer_shape=_infer_flatten,
    ),
    OpSchema(
        name="rearrange",
        compute=_compute_rearrange,
        export=_export_rearrange,
        attributes={
            "view": Attribute(f"up to {_MAX_DIMENSIONS} sizes, or sizes and None, None", _is_view),
            "order": Attribute("the indices of the dimensions in another order", _is_order),
        },
        check=_check_rearrange,
        infer_shape=_infer_rearrange,
    ),
    OpSchema(
        name="pixel_shuffle",
        compute=_compute_pixel_shuffle,
        export=_export_pixel_shuffle,
        attributes={"upscale_factor": integer(1)},
        infer_shape=_infer_pixel_shuffle,
    ),
    OpSchema(
        name="pixel_unshuffle",
        compute=_compute_pixel_unshuffle,
        export=_export_pixel_unshuffle,
        attributes={"downscale_factor": integer(1)},
        infer_shape=_infer_pixel_unshuffle,
    ),
)
