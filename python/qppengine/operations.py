# SPDX-License-Identifier: Apache-2.0
"""The operations of a `Graph`: what each takes, what is wrong with a node, and what shape it makes.

Operations (tensors are float32; sizes in pixels, pairs are height, width):

=================== =========================================== ====================================
operation           attributes                                  tensors
=================== =========================================== ====================================
conv2d              stride, padding, dilation, activation,      weight ``[O, I, kH, kW]``, maybe
                    maybe groups                                bias ``[O]``
conv_transpose2d    the same, output_padding                    weight ``[I, O, kH, kW]``, the same
activation          activation                                  none
sigmoid, silu       none                                        none
hardsigmoid         none                                        none
hardswish           none                                        none
prelu               none                                        weight ``[C]`` or ``[1]``
batch_norm          eps                                         weight, bias, mean, var: ``[C]``
add, sub, mul       activation                                  none
max_pool2d          kernel, stride, padding, ceil_mode,         none
                    maybe dilation
avg_pool2d          kernel, stride, padding, ceil_mode,         none
                    count_include_pad, maybe divisor
global_avg_pool     none                                        none
adaptive_avg_pool2d size                                        none
adaptive_max_pool2d size                                        none
softmax             none                                        none
log_softmax         none                                        none
argmax              none                                        none
concat              none                                        none
slice               axis, start, stop, step                     none
pad                 padding, mode                               none
resize              mode, align_corners, size or scale,         none
                    maybe snap_scale
flatten             none                                        none
rearrange           view, order                                 none
pixel_shuffle       upscale_factor                              none
pixel_unshuffle     downscale_factor                            none
=================== =========================================== ====================================

``activation`` is "none", "relu", "tanh" or "clamp"; the last brings ``clamp``: ``[lo, hi]``.
Attributes of an image's axes are pairs, except that ``padding`` may have four sides: top, left,
bottom, right. add, sub and mul take two inputs of one shape, or the second ``[N, C, 1, 1]``; they
have no "tanh". conv2d of one group may take a second input, of the output's shape, which is added
before the activation: its residual; it then has no "tanh" either. concat joins the channels of any
number of inputs. The others take one input.
softmax, log_softmax and argmax go over the channels; the last makes ``[N, 1, H, W]`` of indices.
slice takes a part of axis 1, 2 or 3 as Python's slices do; ``stop`` is ``None`` for the end. pad
has a ``mode`` "zeros", "reflect" or "replicate"; with negative ``padding``, zeros crops. resize has
a ``mode`` "nearest", "nearest-exact" or "bilinear"; with ``snap_scale``, as PyTorch does whatever
the scale is, an axis whose size does not change is copied, and "nearest" repeats each pixel of one
that becomes twice as long. flatten makes ``[N, C * H * W, 1, 1]`` of a
known size. rearrange sees each image of the batch with the dimensions ``view``, whose last two may
be ``None`` for the height and width it has, puts them in the ``order`` given, and merges the first
of more than three, or adds ones behind less.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from qppengine.errors import ShapeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from qppengine.graph import Node

Shape: TypeAlias = tuple[int | None, ...]

ACTIVATIONS = ("none", "relu", "tanh", "clamp")
FUNCTIONS = ("sigmoid", "silu", "hardsigmoid", "hardswish")
BINARY_ACTIVATIONS = ("none", "relu", "clamp")
RESIZE_MODES = ("nearest", "nearest-exact", "bilinear")
# The integers that fp16 holds exactly.
MOST_CLASSES = 2048
PAD_MODES = ("zeros", "reflect", "replicate")


class _Attribute(NamedTuple):
    expected: str
    accepts: Callable[[Any], bool]


class _Operation(NamedTuple):
    attributes: Mapping[str, _Attribute]
    tensors: Mapping[str, int]  # name to rank
    optional: frozenset[str] = frozenset()  # of attributes and tensors
    inputs: int | None = 1  # None: one or more
    further: int = 0  # inputs that may be there


def is_int(value: Any, minimum: int) -> bool:
    """Whether it is an integer, and no bool, of at least `minimum`."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= minimum


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _pair(minimum: int) -> _Attribute:
    return _Attribute(
        f"two integers of at least {minimum}",
        lambda value: (
            isinstance(value, (list, tuple))
            and len(value) == 2
            and all(is_int(item, minimum) for item in value)
        ),
    )


def _is_list(value: Any, lengths: Sequence[int], accepts: Callable[[Any], bool]) -> bool:
    is_list = isinstance(value, (list, tuple)) and len(value) in lengths
    return is_list and all(accepts(item) for item in value)


def _choice(names: Sequence[str]) -> _Attribute:
    return _Attribute(
        f"one of {', '.join(names)}", lambda value: isinstance(value, str) and value in names
    )


def _integer(minimum: int, maximum: int | None = None) -> _Attribute:
    expected = f"of at least {minimum}" if maximum is None else f"from {minimum} to {maximum}"
    return _Attribute(
        f"an integer {expected}",
        lambda n: is_int(n, minimum) and (maximum is None or n <= maximum),
    )


def _is_interval(value: Any) -> bool:
    return (
        isinstance(value, (list, tuple))
        and len(value) == 2
        and all(_is_number(bound) for bound in value)
        and value[0] <= value[1]
    )


def _are_scales(value: Any) -> bool:
    return (
        isinstance(value, (list, tuple))
        and len(value) == 2
        and all(_is_number(scale) and 1 / 256 <= scale <= 256 for scale in value)
    )


def _activation(names: Sequence[str]) -> dict[str, _Attribute]:
    return {
        "activation": _choice(names),
        "clamp": _Attribute("two finite numbers lo <= hi", _is_interval),
    }


_ACTIVATION = _activation(ACTIVATIONS)
_BINARY = _Operation(_activation(BINARY_ACTIVATIONS), {}, frozenset({"clamp"}), inputs=2)
_FLAG = _Attribute("true or false", lambda value: isinstance(value, bool))
_PADDING = _Attribute(
    "two or four integers of at least 0",
    lambda value: _is_list(value, (2, 4), lambda item: is_int(item, 0)),
)
_POOL = {"kernel": _pair(1), "stride": _pair(1), "padding": _PADDING, "ceil_mode": _FLAG}
_CONVOLUTION = {
    "stride": _pair(1),
    "dilation": _pair(1),
    "groups": _integer(1),
    **_ACTIVATION,
}
_INTEGER = _Attribute("an integer", lambda n: isinstance(n, int) and not isinstance(n, bool))
_MOST_DIMENSIONS = 6  # of a rearrangement

OPERATIONS: Mapping[str, _Operation] = {
    "conv2d": _Operation(
        {**_CONVOLUTION, "padding": _PADDING},
        {"weight": 4, "bias": 1},
        frozenset({"bias", "clamp", "groups"}),
        further=1,
    ),
    "conv_transpose2d": _Operation(
        {**_CONVOLUTION, "padding": _pair(0), "output_padding": _pair(0)},
        {"weight": 4, "bias": 1},
        frozenset({"bias", "clamp", "groups"}),
    ),
    "activation": _Operation(_ACTIVATION, {}, frozenset({"clamp"})),
    "batch_norm": _Operation(
        {"eps": _Attribute("a number of at least 0", lambda eps: _is_number(eps) and eps >= 0)},
        {"weight": 1, "bias": 1, "mean": 1, "var": 1},
    ),
    **{name: _Operation({}, {}) for name in FUNCTIONS},
    "prelu": _Operation({}, {"weight": 1}),
    "add": _BINARY,
    "sub": _BINARY,
    "mul": _BINARY,
    "max_pool2d": _Operation({**_POOL, "dilation": _pair(1)}, {}, frozenset({"dilation"})),
    "avg_pool2d": _Operation(
        {**_POOL, "count_include_pad": _FLAG, "divisor": _integer(1)}, {}, frozenset({"divisor"})
    ),
    "global_avg_pool": _Operation({}, {}),
    "adaptive_avg_pool2d": _Operation({"size": _pair(1)}, {}),
    "adaptive_max_pool2d": _Operation({"size": _pair(1)}, {}),
    "softmax": _Operation({}, {}),
    "log_softmax": _Operation({}, {}),
    "argmax": _Operation({}, {}),
    "concat": _Operation({}, {}, inputs=None),
    "slice": _Operation(
        {
            "axis": _integer(1, 3),
            "start": _INTEGER,
            "stop": _Attribute("an integer or None", lambda n: n is None or _INTEGER.accepts(n)),
            "step": _integer(1),
        },
        {},
    ),
    "pad": _Operation(
        {
            "padding": _Attribute("four integers", lambda v: _is_list(v, (4,), _INTEGER.accepts)),
            "mode": _choice(PAD_MODES),
        },
        {},
    ),
    "resize": _Operation(
        {
            "mode": _choice(RESIZE_MODES),
            "align_corners": _FLAG,
            "size": _pair(1),
            "scale": _Attribute("two numbers from 1/256 to 256", _are_scales),
            "snap_scale": _FLAG,
        },
        {},
        frozenset({"size", "scale", "snap_scale"}),
    ),
    "flatten": _Operation({}, {}),
    "rearrange": _Operation(
        {
            "view": _Attribute(
                f"up to {_MOST_DIMENSIONS} sizes, or sizes and None, None",
                lambda v: (
                    _is_list(v, range(1, _MOST_DIMENSIONS + 1), lambda n: n is None or is_int(n, 1))
                    and (
                        None not in v
                        or (len(v) > 2 and list(v).count(None) == 2 and v[-2:].count(None) == 2)
                    )
                ),
            ),
            "order": _Attribute(
                "the indices of the dimensions in another order",
                lambda v: (
                    _is_list(v, range(1, _MOST_DIMENSIONS + 1), _INTEGER.accepts)
                    and sorted(v) == list(range(len(v)))
                ),
            ),
        },
        {},
    ),
    "pixel_shuffle": _Operation({"upscale_factor": _integer(1)}, {}),
    "pixel_unshuffle": _Operation({"downscale_factor": _integer(1)}, {}),
}


def node_problems(node: Node) -> Iterator[str]:
    """What is wrong with a node by itself, whatever its inputs are."""
    if node.op not in OPERATIONS:
        yield f"unknown operation {node.op!r}, expected one of {', '.join(OPERATIONS)}"
        return
    attributes, tensors, optional, inputs, further = OPERATIONS[node.op]
    if inputs is None and not node.inputs:
        yield f"{node.op} takes 1 input or more, got 0"
    if inputs is not None and not inputs <= len(node.inputs) <= inputs + further:
        most = inputs + further
        expected = f"{inputs} or {most}" if further else str(inputs)
        yield f"{node.op} takes {expected} input{'s' * (most > 1)}, got {len(node.inputs)}"
    if node.op == "conv2d" and len(node.inputs) > 1:
        if node.attributes.get("groups", 1) != 1:
            yield "a residual belongs to a convolution of one group"
        if node.attributes.get("activation") not in BINARY_ACTIVATIONS:
            yield f"activation beside a residual must be {_choice(BINARY_ACTIVATIONS).expected}"

    for name in sorted(node.attributes.keys() - attributes.keys()):
        yield f"{node.op} has no attribute {name!r}"
    for name, (expected, accepts) in attributes.items():
        if name not in node.attributes:
            if name not in optional:
                yield f"attribute {name!r} is missing"
        elif not accepts(node.attributes[name]):
            yield f"attribute {name!r} must be {expected}, got {node.attributes[name]!r}"
    if "activation" in attributes:
        clamps = node.attributes.get("activation") == "clamp"
        if clamps != ("clamp" in node.attributes):
            yield "attribute 'clamp' belongs to activation 'clamp', and to no other"
    yield from _padding_problems(node)
    if node.op == "resize":
        if ("size" in node.attributes) == ("scale" in node.attributes):
            yield "expected either attribute 'size' or attribute 'scale'"
        if "snap_scale" in node.attributes and "scale" not in node.attributes:
            yield "attribute 'snap_scale' belongs to attribute 'scale'"
        if node.attributes.get("mode") != "bilinear" and node.attributes.get("align_corners"):
            yield "attribute 'align_corners' belongs to mode 'bilinear'"
    if node.op == "rearrange":
        view, order = (node.attributes.get(key, ()) for key in ("view", "order"))
        if len(view) != len(order):
            yield f"view and order must have one length, got {len(view)} and {len(order)}"
    crops = any(side < 0 for side in node.attributes.get("padding", ()))
    if node.op == "pad" and node.attributes.get("mode") != "zeros" and crops:
        yield "negative padding belongs to mode 'zeros'"

    for name in sorted(node.tensors.keys() - tensors.keys()):
        yield f"{node.op} has no tensor {name!r}"
    for name, rank in tensors.items():
        if name not in node.tensors:
            if name not in optional:
                yield f"tensor {name!r} is missing"
            continue
        tensor = node.tensors[name]
        if tensor.dtype != np.float32:
            yield f"tensor {name!r} must be float32, got {tensor.dtype}"
        elif not np.isfinite(tensor).all():
            yield f"tensor {name!r} holds NaN or infinity"
        if tensor.ndim != rank or tensor.size == 0:
            yield f"tensor {name!r} must have {rank} dimensions >= 1, got {list(tensor.shape)}"


def _padding_problems(node: Node) -> Iterator[str]:
    """No window of a pool may lie in the padding alone."""
    if node.op not in ("max_pool2d", "avg_pool2d"):
        return
    try:
        kernel, padding = node.attributes["kernel"], sides(node.attributes["padding"])
        too_wide = any(2 * side > kernel[i % 2] for i, side in enumerate(padding))
    except (KeyError, TypeError, ValueError, IndexError):  # told already
        return
    if too_wide:
        yield "attribute 'padding' must be at most half the kernel"


def sides(padding: Sequence[int]) -> tuple[int, int, int, int]:
    """Top, left, bottom and right of an attribute ``padding``."""
    top, left, bottom, right = padding if len(padding) == 4 else (*padding, *padding)
    return top, left, bottom, right


def infer_shape(node: Node, shapes: Sequence[Shape]) -> Shape:
    """Shape of the node's output for the shapes of its inputs."""
    return _SHAPES[node.op](node, shapes) if node.op in _SHAPES else shapes[0]


def channels_of(shape: Shape) -> int:
    """The channels, which are always known."""
    assert shape[1] is not None
    return shape[1]


def _infer_conv2d(node: Node, shapes: Sequence[Shape]) -> Shape:
    batch, channels, *size = shapes[0]
    filters, taken, *kernel = node.tensors["weight"].shape
    groups: int = node.attributes.get("groups", 1)
    if filters % groups:
        raise ShapeError(f"{node.name}: {groups} groups must divide the {filters} filters")
    _expect_channels(node, channels, taken * groups)
    _expect_length(node, "bias", filters)
    dilation = node.attributes["dilation"]
    spans = [step * (taps - 1) + 1 for step, taps in zip(dilation, kernel, strict=True)]
    shape = (batch, filters, *_slide(node, size, spans))
    for residual in shapes[1:]:
        if not _fits(shape, residual):
            raise ShapeError(
                f"{node.name}: expected a residual of the output's shape {list(shape)}, "
                f"{node.inputs[1]!r} has {list(residual)}"
            )
        shape = _merged(shape, residual)
    return shape


def _infer_conv_transpose2d(node: Node, shapes: Sequence[Shape]) -> Shape:
    batch, channels, *size = shapes[0]
    taken, filters, *kernel = node.tensors["weight"].shape
    groups: int = node.attributes.get("groups", 1)
    if taken % groups:
        raise ShapeError(f"{node.name}: {groups} groups must divide the {taken} channels")
    _expect_channels(node, channels, taken)
    _expect_length(node, "bias", filters * groups)
    sizes = []
    for axis, taps in enumerate(kernel):
        stride, padding, more, dilation = (
            node.attributes[key][axis]
            for key in ("stride", "padding", "output_padding", "dilation")
        )
        n = size[axis]
        rest = dilation * (taps - 1) + 1 - 2 * padding + more
        sizes.append(None if n is None else (n - 1) * stride + rest)
        if more >= max(stride, dilation):
            raise ShapeError(f"{node.name}: output_padding must be below stride or dilation")
        if n is not None and (n - 1) * stride + rest < 1:
            raise ShapeError(
                f"{node.name}: the output would be empty: {node.inputs[0]!r} has size {n}"
            )
    return (batch, filters * groups, *sizes)


def _infer_pool(node: Node, shapes: Sequence[Shape]) -> Shape:
    dilation = node.attributes.get("dilation", (1, 1))
    kernel = node.attributes["kernel"]
    spans = [step * (taps - 1) + 1 for step, taps in zip(dilation, kernel, strict=True)]
    return (*shapes[0][:2], *_slide(node, shapes[0][2:], spans))


def _infer_adaptive_pool(node: Node, shapes: Sequence[Shape]) -> Shape:
    return (*shapes[0][:2], *node.attributes.get("size", (1, 1)))


def _infer_normalization(node: Node, shapes: Sequence[Shape]) -> Shape:
    for name in node.tensors:
        if node.op != "prelu" or len(node.tensors[name]) != 1:
            _expect_length(node, name, channels_of(shapes[0]))
    return shapes[0]


def _infer_argmax(node: Node, shapes: Sequence[Shape]) -> Shape:
    batch, channels, *size = shapes[0]
    if channels_of(shapes[0]) > MOST_CLASSES:
        raise ShapeError(
            f"{node.name}: indices are fp16 numbers, exact up to {MOST_CLASSES}; "
            f"{node.inputs[0]!r} has {channels} channels"
        )
    return (batch, 1, *size)


def _infer_slice(node: Node, shapes: Sequence[Shape]) -> Shape:
    axis = node.attributes["axis"]
    shape = list(shapes[0])
    if (size := shape[axis]) is not None:
        start, stop, step = (node.attributes[key] for key in ("start", "stop", "step"))
        shape[axis] = len(range(*slice(start, stop, step).indices(size)))
        if shape[axis] == 0:
            raise ShapeError(
                f"{node.name}: the output would be empty: {node.inputs[0]!r} has size {size}"
            )
    return tuple(shape)


def _infer_pad(node: Node, shapes: Sequence[Shape]) -> Shape:
    shape = list(shapes[0])
    top, left, bottom, right = node.attributes["padding"]
    for axis, before, after in ((2, top, bottom), (3, left, right)):
        if (size := shape[axis]) is None:
            continue
        shape[axis] = size + before + after
        if size + min(before, 0) + min(after, 0) < 1:
            raise ShapeError(
                f"{node.name}: the output would be empty: {node.inputs[0]!r} has size {size}"
            )
        if node.attributes["mode"] == "reflect" and max(before, after) >= size:
            raise ShapeError(
                f"{node.name}: {node.inputs[0]!r} of size {size} has no {max(before, after)} "
                "pixels to reflect"
            )
    return tuple(shape)


def _infer_flatten(node: Node, shapes: Sequence[Shape]) -> Shape:
    batch, _, height, width = shapes[0]
    if height is None or width is None:
        raise ShapeError(f"{node.name}: {node.inputs[0]!r} must have a known height and width")
    return (batch, channels_of(shapes[0]) * height * width, 1, 1)


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
            f"{node.name}: {node.inputs[0]!r} of shape {list(shapes[0])} cannot be seen as "
            f"{node.attributes['view']}"
        )
    sizes = [view[index] for index in node.attributes["order"]]
    merged, kept = sizes[: len(sizes) - 2 if len(sizes) > 3 else 1], sizes[-2:]
    if len(sizes) <= 3:
        kept = [*sizes[1:], *[1] * (3 - len(sizes))]
    if None in merged:
        raise ShapeError(f"{node.name}: channels would depend on the size of {node.inputs[0]!r}")
    return (batch, math.prod(n or 1 for n in merged), *kept)


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


def _fits(one: Shape, other: Shape) -> bool:
    return all(a is None or b is None or a == b for a, b in zip(one, other, strict=True))


def _merged(one: Shape, other: Shape) -> Shape:
    return tuple(b if a is None else a for a, b in zip(one, other, strict=True))


def _infer_binary(node: Node, shapes: Sequence[Shape]) -> Shape:
    """The common shape; open sizes take what the other input knows."""
    first, second = shapes
    if _fits(second, (*first[:2], 1, 1)) and second[2:] == (1, 1):
        return first
    if _fits(first, second):
        return _merged(first, second)
    raise ShapeError(
        f"{node.name}: expected two inputs of one shape, or the second [N, C, 1, 1], "
        f"{node.inputs[0]!r} has {list(first)} and {node.inputs[1]!r} {list(second)}"
    )


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


def _infer_resize(node: Node, shapes: Sequence[Shape]) -> Shape:
    size = shapes[0][2:]
    if "size" in node.attributes:
        return (*shapes[0][:2], *node.attributes["size"])
    sizes = tuple(
        None if n is None else math.floor(n * scale)
        for n, scale in zip(size, node.attributes["scale"], strict=True)
    )
    if 0 in sizes:
        raise ShapeError(
            f"{node.name}: the output would be empty: {node.inputs[0]!r} has size {list(size)}"
        )
    return (*shapes[0][:2], *sizes)


def _slide(node: Node, size: Sequence[int | None], spans: Sequence[int]) -> Iterator[int | None]:
    """Numbers of rows and columns of windows that span so much of a padded image."""
    padding = sides(node.attributes["padding"])
    for axis, (n, span, stride) in enumerate(
        zip(size, spans, node.attributes["stride"], strict=True)
    ):
        if n is None:
            yield None
            continue
        # In ceil mode the last window, even the only one, may reach beyond the padded image by less
        # than a stride, but has to begin before its right padding.
        ceil_mode = node.attributes.get("ceil_mode", False)
        more = stride - 1 if ceil_mode else 0
        room = n + padding[axis] + padding[axis + 2] - span + more
        if room < 0:
            raise ShapeError(
                f"{node.name}: {node.inputs[0]!r} of size {n}, padded by {padding[axis]} and "
                f"{padding[axis + 2]}, is smaller than the window of {span}"
            )
        count = room // stride + 1
        yield count - 1 if ceil_mode and (count - 1) * stride >= n + padding[axis] else count


def _expect_channels(node: Node, channels: int | None, taken: int) -> None:
    if channels != taken:
        raise ShapeError(
            f"{node.name}: the weight takes {taken} channels, {node.inputs[0]!r} has {channels}"
        )


def _expect_length(node: Node, tensor: str, length: int) -> None:
    if tensor in node.tensors and len(node.tensors[tensor]) != length:
        raise ShapeError(
            f"{node.name}: expected {tensor} of length {length}, got {len(node.tensors[tensor])}"
        )


# Operations that are not here keep the shape of their input.
_SHAPES: Mapping[str, Callable[[Node, Sequence[Shape]], Shape]] = {
    "conv2d": _infer_conv2d,
    "conv_transpose2d": _infer_conv_transpose2d,
    "batch_norm": _infer_normalization,
    "prelu": _infer_normalization,
    "add": _infer_binary,
    "sub": _infer_binary,
    "mul": _infer_binary,
    "max_pool2d": _infer_pool,
    "avg_pool2d": _infer_pool,
    "global_avg_pool": _infer_adaptive_pool,
    "adaptive_avg_pool2d": _infer_adaptive_pool,
    "adaptive_max_pool2d": _infer_adaptive_pool,
    "argmax": _infer_argmax,
    "concat": _infer_concat,
    "slice": _infer_slice,
    "pad": _infer_pad,
    "resize": _infer_resize,
    "flatten": _infer_flatten,
    "rearrange": _infer_rearrange,
    "pixel_shuffle": _infer_pixel_shuffle,
    "pixel_unshuffle": _infer_pixel_unshuffle,
}
