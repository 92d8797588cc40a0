# SPDX-License-Identifier: Apache-2.0
"""The network as data: a `Graph` of `Node`s over named values, and a builder to write one by hand.

Every value is a float32 image batch ``[N, C, H, W]``; ``None`` in a shape is any size from 1 on.
A `Graph` that exists is valid: its constructor checks everything and reports all problems at once.

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
resize              mode, align_corners, size or scale          none
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
a ``mode`` "nearest", "nearest-exact" or "bilinear". flatten makes ``[N, C * H * W, 1, 1]`` of a
known size. rearrange sees each image of the batch with the dimensions ``view``, whose last two may
be ``None`` for the height and width it has, puts them in the ``order`` given, and merges the first
of more than three, or adds ones behind less.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from qppengine.errors import ModelError, ShapeError, listing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

Array: TypeAlias = npt.NDArray[np.float32]
Shape: TypeAlias = tuple[int | None, ...]

ACTIVATIONS = ("none", "relu", "tanh", "clamp")
FUNCTIONS = ("sigmoid", "silu", "hardsigmoid", "hardswish")
BINARY_ACTIVATIONS = ("none", "relu", "clamp")
RESIZE_MODES = ("nearest", "nearest-exact", "bilinear")
# The integers that fp16 holds exactly.
MOST_CLASSES = 2048
PAD_MODES = ("zeros", "reflect", "replicate")


@dataclass(frozen=True)
class Value:
    """An input of the network."""

    name: str
    shape: Shape


@dataclass(frozen=True, eq=False)
class Node:
    """One operation. `output` is the name of the value it makes.

    With `fp16` it reads fp16 in quantized runs, too (`qppengine.passes.keep_fp16`).
    """

    op: str
    name: str
    inputs: tuple[str, ...]
    output: str
    attributes: Mapping[str, Any] = field(default_factory=dict)
    tensors: Mapping[str, Array] = field(default_factory=dict)
    fp16: bool = False


@dataclass(frozen=True, eq=False)
class Graph:
    """A network: nodes in an order in which they can run. Raises `ModelError` if it is none."""

    name: str
    inputs: tuple[Value, ...]
    outputs: tuple[str, ...]
    nodes: tuple[Node, ...]

    def __post_init__(self) -> None:
        problems = list(_structure_problems(self))
        # Shapes are inferred only through a sound structure.
        problems = problems or list(_shape_problems(self))
        if problems:
            raise ModelError(listing(f"graph {self.name!r} is invalid", problems))

    @cached_property
    def shapes(self) -> dict[str, Shape]:
        """Shape of every value, in order of definition; ``None`` where it depends on the input."""
        return self.infer_shapes({value.name: value.shape for value in self.inputs})

    def infer_shapes(self, inputs: Mapping[str, Shape]) -> dict[str, Shape]:
        """Shape of every value for the given input shapes. Raises `ShapeError` naming the node."""
        shapes = dict(inputs)
        for node in self.nodes:
            shapes[node.output] = _infer(node, [shapes[name] for name in node.inputs])
        return shapes

    def closed_shapes(self, size: int) -> dict[str, tuple[int, ...]]:
        """Shape of every value for one image of `size` pixels a side, where that is open.

        Raises `ShapeError` when such an image does not pass.
        """
        shapes = self.infer_shapes(
            {
                value.name: tuple(
                    known if known is not None else (1 if axis == 0 else size)
                    for axis, known in enumerate(value.shape)
                )
                for value in self.inputs
            }
        )
        return cast("dict[str, tuple[int, ...]]", shapes)

    @cached_property
    def consumers(self) -> dict[str, tuple[Node, ...]]:
        """The nodes that read each value."""
        return {
            value: tuple(node for node in self.nodes if value in node.inputs)
            for value in self.shapes
        }

    @cached_property
    def int8_nodes(self) -> frozenset[str]:
        """Names of the nodes that read int8 in a quantized run, but for those that keep fp16.

        That is convolutions, and operations that follow in int8 whose output is read so.
        """
        return frozenset(self._int8_inputs)

    def reads_int8(self, node: Node, index: int = 0) -> bool:
        """Whether a node reads this input in int8 in a quantized run.

        Nodes of `int8_nodes` read all inputs so, but for the residual of a convolution whose output
        nobody reads in int8.
        """
        return index < self._int8_inputs.get(node.name, 0)

    @cached_property
    def _int8_inputs(self) -> Mapping[str, int]:
        """How many inputs the nodes of `int8_nodes` read in int8: the first ones."""
        counts: dict[str, int] = {}
        held: set[str] = set()
        for node in reversed(self.nodes):
            follows = node.op in _FOLLOWS_IN_INT8 and node.output in held
            if not node.fp16 and (_asks_for_int8(node) or follows):
                counts[node.name] = len(node.inputs) if follows else 1
                held.update(node.inputs[: counts[node.name]])
        return counts

    @cached_property
    def row_owners(self) -> Mapping[str, str]:
        """What a quantized run holds in int8, and the value whose row of the QP table it uses.

        The output of an operation in int8 that keeps levels shares the row of its input; every
        other value owns one.
        """
        readers = [node for node in self.nodes if node.name in self.int8_nodes]
        held = {value for node in readers for value in node.inputs[: self._int8_inputs[node.name]]}
        owners = {value: value for value in self.shapes if value in held}
        for node in readers:
            if node.op in KEEPS_LEVELS and node.output in held:
                owners[node.output] = owners[node.inputs[0]]
        return owners

    @cached_property
    def quantized_values(self) -> tuple[str, ...]:
        """The values that own a row of the QP table, as defined."""
        return tuple(value for value, owner in self.row_owners.items() if value == owner)


# Operations whose int8 output has the levels of the input, and all that read int8 where their
# output is wanted in int8.
KEEPS_LEVELS = frozenset(
    {
        "max_pool2d",
        "adaptive_max_pool2d",
        "slice",
        "pad",
        "resize",
        "flatten",
        "rearrange",
        "pixel_shuffle",
        "pixel_unshuffle",
    }
)
_FOLLOWS_IN_INT8 = KEEPS_LEVELS | {
    "conv2d",
    "add",
    "sub",
    "mul",
    "avg_pool2d",
    "global_avg_pool",
    "adaptive_avg_pool2d",
    "concat",
}


def _asks_for_int8(node: Node) -> bool:
    """Convolutions read int8, save those that only scale and shift channels: they follow."""
    if node.op != "conv2d":
        return False
    filters, *taken = node.tensors["weight"].shape
    return taken != [1, 1, 1] or filters != node.attributes.get("groups", 1)


class _Attribute(NamedTuple):
    expected: str
    accepts: Callable[[Any], bool]


class _Operation(NamedTuple):
    attributes: Mapping[str, _Attribute]
    tensors: Mapping[str, int]  # name to rank
    optional: frozenset[str] = frozenset()  # of attributes and tensors
    inputs: int | None = 1  # None: one or more
    further: int = 0  # inputs that may be there


def _is_int(value: Any, minimum: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= minimum


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _pair(minimum: int) -> _Attribute:
    return _Attribute(
        f"two integers of at least {minimum}",
        lambda value: (
            isinstance(value, (list, tuple))
            and len(value) == 2
            and all(_is_int(item, minimum) for item in value)
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
        lambda n: _is_int(n, minimum) and (maximum is None or n <= maximum),
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
    lambda value: _is_list(value, (2, 4), lambda item: _is_int(item, 0)),
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

_OPERATIONS: Mapping[str, _Operation] = {
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
        },
        {},
        frozenset({"size", "scale"}),
    ),
    "flatten": _Operation({}, {}),
    "rearrange": _Operation(
        {
            "view": _Attribute(
                f"up to {_MOST_DIMENSIONS} sizes, or sizes and None, None",
                lambda v: (
                    _is_list(
                        v, range(1, _MOST_DIMENSIONS + 1), lambda n: n is None or _is_int(n, 1)
                    )
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


def _structure_problems(graph: Graph) -> Iterator[str]:
    """Everything that can be told without shape inference."""
    if not graph.inputs:
        yield "it has no inputs"
    if not graph.outputs:
        yield "it has no outputs"
    for kind, names in (
        ("value", [v.name for v in graph.inputs] + [n.output for n in graph.nodes]),
        ("node", [n.name for n in graph.nodes]),
        ("output", graph.outputs),
    ):
        yield from (
            f"{kind} {n!r} is defined {k} times" for n, k in Counter(names).items() if k > 1
        )
        if "" in names:
            yield f"a {kind} has an empty name"

    for value in graph.inputs:
        if len(value.shape) != 4:
            yield f"input {value.name!r}: expected [N, C, H, W], got {list(value.shape)}"
        elif value.shape[1] is None:
            yield f"input {value.name!r}: channels must be known, got {list(value.shape)}"
        if not all(size is None or _is_int(size, 1) for size in value.shape):
            yield f"input {value.name!r}: sizes must be at least 1, got {list(value.shape)}"

    defined = {value.name for value in graph.inputs}
    for node in graph.nodes:
        yield from (
            f"{node.name}: reads {i!r} before it is defined"
            for i in node.inputs
            if i not in defined
        )
        defined.add(node.output)
        yield from (f"{node.name}: {problem}" for problem in _node_problems(node))
    yield from (f"output {name!r} is not defined" for name in graph.outputs if name not in defined)


def _node_problems(node: Node) -> Iterator[str]:
    if node.op not in _OPERATIONS:
        yield f"unknown operation {node.op!r}, expected one of {', '.join(_OPERATIONS)}"
        return
    attributes, tensors, optional, inputs, further = _OPERATIONS[node.op]
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


def _shape_problems(graph: Graph) -> Iterator[str]:
    shapes: dict[str, Shape | None] = {value.name: value.shape for value in graph.inputs}
    for node in graph.nodes:
        inputs = [shape for name in node.inputs if (shape := shapes[name]) is not None]
        shapes[node.output] = None  # unknown after a problem: its consequences are not reported
        if len(inputs) == len(node.inputs):
            try:
                shapes[node.output] = _infer(node, inputs)
            except ShapeError as error:
                yield str(error)


def _infer(node: Node, shapes: Sequence[Shape]) -> Shape:
    """Shape of the node's output for the shapes of its inputs."""
    return _SHAPES[node.op](node, shapes) if node.op in _SHAPES else shapes[0]


def _channels(shape: Shape) -> int:
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
            raise ShapeError(f"{node.name}: nothing is left of {node.inputs[0]!r} of size {n}")
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
            _expect_length(node, name, _channels(shapes[0]))
    return shapes[0]


def _infer_argmax(node: Node, shapes: Sequence[Shape]) -> Shape:
    batch, channels, *size = shapes[0]
    if _channels(shapes[0]) > MOST_CLASSES:
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
            raise ShapeError(f"{node.name}: nothing is left of {node.inputs[0]!r} of size {size}")
    return tuple(shape)


def _infer_pad(node: Node, shapes: Sequence[Shape]) -> Shape:
    shape = list(shapes[0])
    top, left, bottom, right = node.attributes["padding"]
    for axis, before, after in ((2, top, bottom), (3, left, right)):
        if (size := shape[axis]) is None:
            continue
        shape[axis] = size + before + after
        if size + min(before, 0) + min(after, 0) < 1:
            raise ShapeError(f"{node.name}: nothing is left of {node.inputs[0]!r} of size {size}")
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
    return (batch, _channels(shapes[0]) * height * width, 1, 1)


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
    if _channels(shapes[0]) % factor**2:
        raise ShapeError(
            f"{node.name}: upscale_factor {factor} needs a multiple of {factor**2} channels, "
            f"{node.inputs[0]!r} has {channels}"
        )
    return (
        batch,
        _channels(shapes[0]) // factor**2,
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
        _channels(shapes[0]) * factor**2,
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
        raise ShapeError(f"{node.name}: nothing is left of {node.inputs[0]!r} of size {list(size)}")
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
        room = n + padding[axis] + padding[axis + 2] - span
        if room < 0:
            raise ShapeError(
                f"{node.name}: {node.inputs[0]!r} of size {n}, padded by {padding[axis]} and "
                f"{padding[axis + 2]}, is smaller than the window of {span}"
            )
        ceil_mode = node.attributes.get("ceil_mode", False)
        count = (room + (stride - 1 if ceil_mode else 0)) // stride + 1
        # In ceil mode the last window may reach beyond the padded image, but has to begin before
        # its right padding.
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


class GraphBuilder:
    """Writes a `Graph` line by line; every method returns the name of the value it defines.

    >>> net = GraphBuilder("edges")
    >>> x = net.input("x", (1, 1, None, None))
    >>> y = net.conv2d(x, np.ones((4, 1, 3, 3), np.float32), padding=1, activation="relu")
    >>> net.output(net.pixel_shuffle(y, 2))
    >>> net.build().shapes["pixel_shuffle"]
    (1, 1, None, None)
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._inputs: list[Value] = []
        self._outputs: list[str] = []
        self._nodes: list[Node] = []
        self._shapes: dict[str, Shape] = {}  # of the inputs and of the first nodes

    def input(self, name: str, shape: Sequence[int | None]) -> str:
        """An input of shape ``[N, C, H, W]``; ``None`` is any size."""
        self._inputs.append(Value(name, tuple(shape)))
        return name

    def conv2d(
        self,
        x: str,
        weight: npt.ArrayLike,
        bias: npt.ArrayLike | None = None,
        *,
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
        residual: str | None = None,
        activation: str = "none",
        clamp: Sequence[float] | None = None,
        name: str | None = None,
    ) -> str:
        """A zero-padded convolution, weight ``[O, I, kH, kW]``, bias ``[O]``, with activation.

        With groups, each of as many parts of the filters sees its own part of the channels. A
        residual is added before the activation.
        """
        attributes = {
            **_convolution_attributes(stride, padding, dilation, groups),
            **_activation_attributes(activation, clamp),
        }
        inputs = [x] if residual is None else [x, residual]
        return self._add("conv2d", inputs, name, attributes, _convolution_tensors(weight, bias))

    def conv_transpose2d(
        self,
        x: str,
        weight: npt.ArrayLike,
        bias: npt.ArrayLike | None = None,
        *,
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] = 0,
        output_padding: int | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
        name: str | None = None,
    ) -> str:
        """As `torch.nn.functional.conv_transpose2d`, weight ``[I, O / groups, kH, kW]``."""
        attributes = {
            **_convolution_attributes(stride, padding, dilation, groups),
            "output_padding": _as_pair(output_padding),
            "activation": "none",
        }
        tensors = _convolution_tensors(weight, bias)
        return self._add("conv_transpose2d", [x], name, attributes, tensors)

    def activation(
        self,
        x: str,
        activation: str,
        *,
        clamp: Sequence[float] | None = None,
        name: str | None = None,
    ) -> str:
        """One of `ACTIVATIONS` as an operation of its own."""
        return self._add(
            "activation", [x], name or activation, _activation_attributes(activation, clamp)
        )

    def relu(self, x: str, *, name: str | None = None) -> str:
        """``max(x, 0)``."""
        return self.activation(x, "relu", name=name)

    def tanh(self, x: str, *, name: str | None = None) -> str:
        """The hyperbolic tangent."""
        return self.activation(x, "tanh", name=name)

    def clamp(self, x: str, lo: float, hi: float, *, name: str | None = None) -> str:
        """``min(max(x, lo), hi)``."""
        return self.activation(x, "clamp", clamp=(lo, hi), name=name)

    def function(self, x: str, function: str, *, name: str | None = None) -> str:
        """One of `FUNCTIONS`, element by element, as in `torch.nn.functional`."""
        return self._add(function, [x], name, {})

    def prelu(self, x: str, weight: npt.ArrayLike, *, name: str | None = None) -> str:
        """``max(x, 0) + weight * min(x, 0)``, weight ``[C]`` or ``[1]``."""
        return self._add("prelu", [x], name, {}, {"weight": weight})

    def batch_norm(
        self,
        x: str,
        weight: npt.ArrayLike,
        bias: npt.ArrayLike,
        mean: npt.ArrayLike,
        var: npt.ArrayLike,
        *,
        eps: float = 1e-5,
        name: str | None = None,
    ) -> str:
        """``(x - mean) / sqrt(var + eps) * weight + bias`` by channel; each tensor ``[C]``."""
        tensors = {"weight": weight, "bias": bias, "mean": mean, "var": var}
        return self._add("batch_norm", [x], name, {"eps": eps}, tensors)

    def affine(
        self, x: str, gain: npt.ArrayLike, shift: npt.ArrayLike, *, name: str | None = None
    ) -> str:
        """``x * gain + shift``, each ``[C]`` or one number: a batch normalization in disguise."""
        channels = _channels(self.shape(x))
        zeros, ones = np.zeros(channels, np.float32), np.ones(channels, np.float32)
        gain, shift = np.asarray(gain) * ones, np.asarray(shift) * ones
        return self.batch_norm(x, gain, shift, zeros, ones, eps=0, name=name)

    def pixel_unshuffle(self, x: str, downscale_factor: int, *, name: str | None = None) -> str:
        """``[N, C, H * r, W * r]`` to ``[N, C * r * r, H, W]``, as `torch.nn.PixelUnshuffle`."""
        return self._add("pixel_unshuffle", [x], name, {"downscale_factor": downscale_factor})

    def pixel_shuffle(self, x: str, upscale_factor: int, *, name: str | None = None) -> str:
        """``[N, C * r * r, H, W]`` to ``[N, C, H * r, W * r]``, as `torch.nn.PixelShuffle`."""
        return self._add("pixel_shuffle", [x], name, {"upscale_factor": upscale_factor})

    def add(self, x: str, y: str, *, activation: str = "none", name: str | None = None) -> str:
        """``x + y``, with an activation "none" or "relu"."""
        return self._binary("add", x, y, activation, name)

    def sub(self, x: str, y: str, *, activation: str = "none", name: str | None = None) -> str:
        """``x - y``, with an activation "none" or "relu"."""
        return self._binary("sub", x, y, activation, name)

    def mul(self, x: str, y: str, *, activation: str = "none", name: str | None = None) -> str:
        """``x * y``, with an activation "none" or "relu"."""
        return self._binary("mul", x, y, activation, name)

    def max_pool2d(
        self,
        x: str,
        kernel: int | Sequence[int],
        *,
        stride: int | Sequence[int] | None = None,
        padding: int | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
        ceil_mode: bool = False,
        name: str | None = None,
    ) -> str:
        """The largest element of every window; padding never counts. The stride is the kernel."""
        attributes = _pool_attributes(kernel, stride, padding, ceil_mode)
        if _as_pair(dilation) != (1, 1):
            attributes["dilation"] = _as_pair(dilation)
        return self._add("max_pool2d", [x], name, attributes)

    def avg_pool2d(
        self,
        x: str,
        kernel: int | Sequence[int],
        *,
        stride: int | Sequence[int] | None = None,
        padding: int | Sequence[int] = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor: int | None = None,
        name: str | None = None,
    ) -> str:
        """The mean of every window, in which padding counts as zeros or not at all.

        With a divisor, the sum over it.
        """
        attributes = _pool_attributes(kernel, stride, padding, ceil_mode)
        attributes["count_include_pad"] = count_include_pad
        if divisor is not None:
            attributes["divisor"] = divisor
        return self._add("avg_pool2d", [x], name, attributes)

    def global_avg_pool(self, x: str, *, name: str | None = None) -> str:
        """The mean of every channel, ``[N, C, 1, 1]``."""
        return self._add("global_avg_pool", [x], name, {})

    def adaptive_avg_pool2d(
        self, x: str, size: int | Sequence[int], *, name: str | None = None
    ) -> str:
        """The means of as many windows as `size` says; of one, `global_avg_pool`."""
        if _as_pair(size) == (1, 1):
            return self.global_avg_pool(x, name=name)
        return self._add("adaptive_avg_pool2d", [x], name, {"size": _as_pair(size)})

    def adaptive_max_pool2d(
        self, x: str, size: int | Sequence[int], *, name: str | None = None
    ) -> str:
        """The largest elements of as many windows as `size` says."""
        return self._add("adaptive_max_pool2d", [x], name, {"size": _as_pair(size)})

    def softmax(self, x: str, *, log: bool = False, name: str | None = None) -> str:
        """The softmax over the channels, or its logarithm."""
        return self._add("log_softmax" if log else "softmax", [x], name, {})

    def argmax(self, x: str, *, name: str | None = None) -> str:
        """The index of the first largest channel, a float, ``[N, 1, H, W]``."""
        return self._add("argmax", [x], name, {})

    def slice(
        self,
        x: str,
        axis: int,
        start: int = 0,
        stop: int | None = None,
        step: int = 1,
        *,
        name: str | None = None,
    ) -> str:
        """``x[start:stop:step]`` along axis 1, 2 or 3."""
        attributes = {"axis": axis, "start": start, "stop": stop, "step": step}
        return self._add("slice", [x], name, attributes)

    def pad(
        self, x: str, padding: Sequence[int], *, mode: str = "zeros", name: str | None = None
    ) -> str:
        """Pixels added above, on the left, below and on the right; negative numbers remove some."""
        return self._add("pad", [x], name, {"padding": tuple(padding), "mode": mode})

    def concat(self, *inputs: str, name: str | None = None) -> str:
        """The channels of all inputs, one behind the other."""
        return self._add("concat", inputs, name, {})

    def resize(
        self,
        x: str,
        *,
        size: int | Sequence[int] | None = None,
        scale: float | Sequence[float] | None = None,
        mode: str = "nearest",
        align_corners: bool = False,
        name: str | None = None,
    ) -> str:
        """As `torch.nn.functional.interpolate` in one of `RESIZE_MODES`."""
        attributes: dict[str, Any] = {"mode": mode, "align_corners": align_corners}
        if size is not None:
            attributes["size"] = _as_pair(size)
        if scale is not None:
            pair = (scale, scale) if isinstance(scale, (int, float)) else scale
            attributes["scale"] = tuple(float(item) for item in pair)
        return self._add("resize", [x], name, attributes)

    def flatten(self, x: str, *, name: str | None = None) -> str:
        """``[N, C * H * W, 1, 1]``, as `torch.flatten` orders it."""
        return self._add("flatten", [x], name, {})

    def rearrange(
        self,
        x: str,
        view: Sequence[int | None],
        order: Sequence[int] | None = None,
        *,
        name: str | None = None,
    ) -> str:
        """Every image seen with other dimensions, which then are put in another order."""
        order = tuple(range(len(view)) if order is None else order)
        return self._add("rearrange", [x], name, {"view": tuple(view), "order": order})

    def shape(self, name: str) -> Shape:
        """The shape of a value defined so far. Raises `ModelError` where a node is invalid."""
        inputs = tuple(self._inputs)
        if not self._shapes and inputs:
            self._shapes = dict(Graph(self._name, inputs, (inputs[0].name,), ()).shapes)
        for node in self._nodes:
            if name in self._shapes:
                break
            if node.output not in self._shapes:
                self._shapes[node.output] = self._shape_of(node)
        if name not in self._shapes:
            raise ModelError(f"graph {self._name!r} has no value {name!r}")
        return self._shapes[name]

    def output(self, *names: str) -> None:
        """Declares values as the outputs of the network, in this order."""
        self._outputs += names

    def build(self) -> Graph:
        """The graph. Raises `ModelError` listing everything that is wrong with it."""
        return Graph(self._name, tuple(self._inputs), tuple(self._outputs), tuple(self._nodes))

    def unique(self, name: str) -> str:
        """`name`, or with the first free suffix ``_1``, ``_2``, ... when it is taken."""
        taken = {value.name for value in self._inputs} | {node.name for node in self._nodes}
        candidates = (f"{name}_{i}" if i else name for i in range(len(taken) + 1))
        return next(candidate for candidate in candidates if candidate not in taken)

    def _shape_of(self, node: Node) -> Shape:
        unknown = [value for value in node.inputs if value not in self._shapes]
        problems = [f"{node.name}: reads {value!r} before it is defined" for value in unknown]
        problems += [f"{node.name}: {problem}" for problem in _node_problems(node)]
        try:
            if not problems:
                return _infer(node, [self._shapes[value] for value in node.inputs])
        except ShapeError as error:
            problems = [str(error)]
        raise ModelError(listing(f"graph {self._name!r} is invalid", problems))

    def _binary(self, op: str, x: str, y: str, activation: str, name: str | None) -> str:
        return self._add(op, [x, y], name, {"activation": activation})

    def _add(
        self,
        op: str,
        inputs: Sequence[str],
        name: str | None,
        attributes: Mapping[str, Any],
        tensors: Mapping[str, npt.ArrayLike] | None = None,
    ) -> str:
        name = self.unique(name or op)
        arrays = {key: np.ascontiguousarray(t, np.float32) for key, t in (tensors or {}).items()}
        self._nodes.append(Node(op, name, tuple(inputs), name, attributes, arrays))
        return name


def _as_pair(value: int | Sequence[int]) -> tuple[int, ...]:
    return (value, value) if isinstance(value, int) else tuple(value)


def _convolution_attributes(
    stride: int | Sequence[int],
    padding: int | Sequence[int],
    dilation: int | Sequence[int],
    groups: int,
) -> dict[str, Any]:
    return {
        "stride": _as_pair(stride),
        "padding": _as_pair(padding),
        "dilation": _as_pair(dilation),
        **({} if groups == 1 else {"groups": groups}),
    }


def _convolution_tensors(
    weight: npt.ArrayLike, bias: npt.ArrayLike | None
) -> dict[str, npt.ArrayLike]:
    return {"weight": weight} if bias is None else {"weight": weight, "bias": bias}


def _pool_attributes(
    kernel: int | Sequence[int],
    stride: int | Sequence[int] | None,
    padding: int | Sequence[int],
    ceil_mode: bool,
) -> dict[str, Any]:
    return {
        "kernel": _as_pair(kernel),
        "stride": _as_pair(kernel if stride is None else stride),
        "padding": _as_pair(padding),
        "ceil_mode": ceil_mode,
    }


def _activation_attributes(activation: str, clamp: Sequence[float] | None) -> dict[str, Any]:
    if clamp is None:
        return {"activation": activation}
    return {"activation": activation, "clamp": tuple(float(bound) for bound in clamp)}
