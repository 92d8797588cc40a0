# SPDX-License-Identifier: Apache-2.0
"""Shapes of the outputs of ONNX operators, from the shapes of their inputs.

ONNX's own inference is not made for files that nobody has checked: some of them abort the process.
Operators that are missing here have no importer, and their outputs no known shape.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from qppengine.errors import ModelError
from qppengine.operations import SOURCES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy.typing as npt

Sizes: TypeAlias = tuple[int, ...]


class UnknownError(Exception):
    """A shape depends on data that is known at run time only."""


class Reads:
    """What a node reads: attributes with their defaults, and shapes and constants of its inputs."""

    def __init__(
        self,
        attributes: Mapping[str, Any],
        inputs: Mapping[str, str | list[str]],  # names by formal name
        shapes: Mapping[str, Sizes],
        constants: Mapping[str, npt.NDArray[Any]],
        outputs: int,
    ) -> None:
        self.attributes = attributes
        self.inputs = inputs
        self.outputs = outputs
        self._shapes = shapes
        self._constants = constants

    def shape(self, argument: str = "") -> Sizes:
        """The shape of an input, by default the first."""
        name = self.inputs[argument] if argument else next(iter(self.inputs.values()))
        return self._known(name if isinstance(name, str) else name[0])

    def shapes(self) -> list[Sizes]:
        """The shapes of all inputs."""
        names = ([name] if isinstance(name, str) else name for name in self.inputs.values() if name)
        return [self._known(name) for group in names for name in group]

    def numbers(self, argument: str) -> list[int] | None:
        """A constant vector of integers: an input, or an attribute in older operator sets."""
        array = self.constant(argument)
        if array is None:
            return self.attributes.get(argument)
        if array.ndim > 1 or array.dtype.kind not in "iu":
            raise ModelError(f"{argument} must be a vector of integers")
        return [int(number) for number in array.ravel()]

    def constant(self, argument: str) -> npt.NDArray[Any] | None:
        """An input that is a constant, or None without that input."""
        name = self.inputs.get(argument)
        if name is None:
            return None
        if not isinstance(name, str) or name not in self._constants:
            raise UnknownError
        return self._constants[name]

    def get(self, attribute: str, default: Any = None) -> Any:
        """An attribute, or a default."""
        return self.attributes.get(attribute, default)

    def _known(self, name: str) -> Sizes:
        if name not in self._shapes:
            raise UnknownError
        return self._shapes[name]


def infer_shapes(op: str, reads: Reads) -> list[Sizes]:
    """The shapes of a node's first outputs. Raises `UnknownError`, `ModelError`."""
    if op in _RULES:
        return _RULES[op](reads)
    if op in _SAME or f"onnx.{op}" in SOURCES:
        return [reads.shape()]
    raise UnknownError


def position(dimension: int, rank: int) -> int:
    """A dimension counted from the first; negative ones count from the last."""
    if not -rank <= dimension < rank:
        raise ModelError(f"dimension {dimension} of a tensor that has {rank}")
    return dimension % rank


def positions(dimensions: Sequence[int], rank: int) -> list[int]:
    """Different dimensions, counted from the first."""
    found = [position(dimension, rank) for dimension in dimensions]
    if len(set(found)) < len(found):
        raise ModelError(f"dimensions {list(dimensions)} of a tensor that has {rank}")
    return found


def slice_of(reads: Reads, shape: Sizes) -> tuple[slice, ...]:
    """What the operator Slice takes of a tensor."""
    starts, ends = reads.numbers("starts") or [], reads.numbers("ends") or []
    axes = reads.numbers("axes")
    steps = reads.numbers("steps") or [1] * len(starts)
    axes = positions(list(range(len(starts))) if axes is None else axes, len(shape))
    if not len(starts) == len(ends) == len(axes) == len(steps):
        raise ModelError("starts, ends, axes and steps must have one length")
    if 0 in steps:
        raise ModelError("steps must not be 0")
    parts = [slice(None)] * len(shape)
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        size = shape[axis]
        below = step < 0 and end < -size  # further than the first element
        parts[axis] = slice(start, None if below else end, step)
    return tuple(parts)


def reshaped(reads: Reads, shape: Sizes) -> Sizes:
    """What the operator Reshape makes of a shape."""
    target = reads.numbers("shape") or []
    if min(target, default=0) < -1 or target.count(-1) > 1:
        raise ModelError(f"shape {target} must have sizes of at least 0, and at most one -1")
    if not reads.get("allowzero"):
        if any(size == 0 and place >= len(shape) for place, size in enumerate(target)):
            raise ModelError(f"shape {target} keeps dimensions that {list(shape)} does not have")
        target = [size or shape[place] for place, size in enumerate(target)]
    rest = math.prod(size for size in target if size != -1)
    total = math.prod(shape)
    if -1 in target and rest:
        target[target.index(-1)] = total // rest
    if math.prod(target) != total:
        raise ModelError(f"{list(shape)} cannot be reshaped to {target}")
    return tuple(target)


def squeezed(reads: Reads, shape: Sizes) -> Sizes:
    """What the operator Squeeze leaves of a shape."""
    axes = reads.numbers("axes")
    if axes is None:
        return tuple(size for size in shape if size != 1)
    removed = positions(axes, len(shape))
    if any(shape[axis] != 1 for axis in removed):
        raise ModelError(f"axes {axes} of {list(shape)} must have size 1")
    return tuple(size for axis, size in enumerate(shape) if axis not in removed)


def unsqueezed(reads: Reads, shape: Sizes) -> Sizes:
    """What the operator Unsqueeze makes of a shape."""
    axes = reads.numbers("axes") or []
    rank = len(shape) + len(axes)
    added = positions(axes, rank)
    rest = iter(shape)
    return tuple(1 if axis in added else next(rest) for axis in range(rank))


def reduced_axes(reads: Reads, rank: int) -> list[int]:
    """The dimensions over which a reduction goes."""
    axes = reads.numbers("axes")
    if axes:
        return positions(axes, rank)
    return [] if reads.get("noop_with_empty_axes") else list(range(rank))


def parts_of(reads: Reads, size: int) -> list[int]:
    """The lengths into which the operator Split divides a dimension."""
    lengths = reads.numbers("split")
    if lengths is None:
        count = reads.get("num_outputs") or reads.outputs
        if count < 1 or count != reads.outputs:
            raise ModelError(f"{count} parts for {reads.outputs} outputs")
        length = -(-size // count)
        lengths = [min(length, size - length * index) for index in range(count)]
    if min(lengths, default=0) < 0 or sum(lengths) != size or len(lengths) != reads.outputs:
        raise ModelError(f"split={lengths} for {reads.outputs} outputs of {size} in all")
    return lengths


def resize_scales(reads: Reads, shape: Sizes) -> list[float]:
    """The factors of the operator Resize, for every dimension."""
    axes = positions(reads.get("axes") or range(len(shape)), len(shape))
    scales, sizes = reads.constant("scales"), reads.numbers("sizes")
    factors = [1.0] * len(shape)
    if scales is not None and scales.size:
        given = [float(scale) for scale in scales.ravel()]
    elif sizes is None or min(sizes, default=0) < 1 or 0 in shape:
        raise ModelError("expected either scales or positive sizes")
    else:
        given = [size / shape[axis] for axis, size in zip(axes, sizes, strict=False)]
        policy = {"not_larger": min, "not_smaller": max}.get(
            reads.get("keep_aspect_ratio_policy", "stretch")
        )
        given = [policy(given)] * len(given) if policy else given
    if len(given) != len(axes) or not all(0 < factor < math.inf for factor in given):
        raise ModelError(f"expected {len(axes)} positive scales or sizes, got {given}")
    for axis, factor in zip(axes, given, strict=True):
        factors[axis] = factor
    return factors


_POOL_MODES = ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER")


def _window_sizes(reads: Reads, sizes: Sizes, kernel: Sequence[int]) -> Sizes:
    """How many windows fit into an image, padded as the attributes say."""
    rank = len(sizes)
    stride, dilation, pads, kernel = window_attributes(reads, rank, kernel)
    counts = []
    for axis, size in enumerate(sizes):
        step, span = stride[axis], dilation[axis] * (kernel[axis] - 1) + 1
        mode = reads.get("auto_pad", "NOTSET")
        if mode.startswith("SAME"):
            counts.append(-(-size // step))
            continue
        before, after = (0, 0) if mode == "VALID" else (pads[axis], pads[axis + rank])
        room = size + before + after - span
        if room < 0:
            raise ModelError(f"a window of {span} does not fit into {size} padded by {pads}")
        count = room // step + 1
        if reads.get("ceil_mode") and room % step and count * step < size + before:
            count += 1  # unless it would begin in the padding at the end
        counts.append(count)
    return tuple(counts)


def window_attributes(
    reads: Reads, rank: int, kernel: Sequence[int] | None
) -> tuple[list[int], list[int], list[int], list[int]]:
    """Strides, dilations, pads and kernel_shape of a window, with their defaults, checked."""
    own = reads.get("kernel_shape")
    if kernel is not None and own is not None and list(own) != list(kernel):
        raise ModelError(
            f"kernel_shape={own} contradicts the weight, whose kernel is {list(kernel)}"
        )
    chosen = list(own or []) if kernel is None else list(kernel)
    stride = list(reads.get("strides") or [1] * rank)
    dilation = list(reads.get("dilations") or [1] * rank)
    pads = list(reads.get("pads") or [0] * 2 * rank)
    mode = reads.get("auto_pad", "NOTSET")
    if mode not in _POOL_MODES:
        raise ModelError(f"auto_pad={mode!r}: expected one of {', '.join(_POOL_MODES)}")
    if any(len(numbers) != rank for numbers in (chosen, stride, dilation)) or len(pads) != 2 * rank:
        raise ModelError(
            f"kernel_shape={chosen}, strides={stride}, dilations={dilation} and pads={pads} must "
            f"belong to {rank} dimensions"
        )
    if min(*chosen, *stride, *dilation, 1) < 1:
        raise ModelError(
            f"kernel_shape={chosen}, strides={stride} and dilations={dilation} must be positive"
        )
    return stride, dilation, pads, chosen


def _conv(reads: Reads) -> list[Sizes]:
    shape, weight = reads.shape("X"), reads.shape("W")
    if len(weight) != len(shape) or len(shape) < 3:
        raise ModelError(f"W {list(weight)} does not belong to X {list(shape)}")
    return [(shape[0], weight[0], *_window_sizes(reads, shape[2:], weight[2:]))]


def _conv_transpose(reads: Reads) -> list[Sizes]:
    shape, weight = reads.shape("X"), reads.shape("W")
    rank = len(shape) - 2
    if len(weight) != len(shape) or rank < 1:
        raise ModelError(f"W {list(weight)} does not belong to X {list(shape)}")
    stride, dilation, pads, kernel = window_attributes(reads, rank, weight[2:])
    more = list(reads.get("output_padding") or [0] * rank)
    sizes = list(reads.get("output_shape") or [])[-rank:]
    if len(more) != rank or (sizes and len(sizes) != rank):
        raise ModelError(f"output_padding={more} and output_shape={sizes} must have {rank} sizes")
    mode = reads.get("auto_pad", "NOTSET")
    for axis in range(rank) if not sizes else ():
        full = (shape[axis + 2] - 1) * stride[axis] + dilation[axis] * (kernel[axis] - 1) + 1
        if mode.startswith("SAME"):
            sizes.append(shape[axis + 2] * stride[axis])
        else:
            both = 0 if mode == "VALID" else pads[axis] + pads[axis + rank]
            sizes.append(full + more[axis] - both)
    return [(shape[0], weight[1] * reads.get("group", 1), *sizes)]


def _pool(reads: Reads) -> list[Sizes]:
    shape = reads.shape("X")
    if len(shape) < 3:
        raise ModelError(f"X {list(shape)} is not an image")
    sizes = (*shape[:2], *_window_sizes(reads, shape[2:], reads.get("kernel_shape")))
    return [sizes] * reads.outputs


def _gemm(reads: Reads) -> list[Sizes]:
    a, b = reads.shape("A"), reads.shape("B")
    if len(a) != 2 or len(b) != 2:
        raise ModelError(f"A {list(a)} and B {list(b)} must be matrices")
    a, b = (a[::-1] if reads.get("transA") else a), (b[::-1] if reads.get("transB") else b)
    if a[1] != b[0]:
        raise ModelError(f"the product of {list(a)} and {list(b)}")
    return [(a[0], b[1])]


def _matmul(reads: Reads) -> list[Sizes]:
    a, b = reads.shape("A"), reads.shape("B")
    if not a or not b:
        raise ModelError("the product of a number")
    left, right = (1, *a) if len(a) == 1 else a, (*b, 1) if len(b) == 1 else b
    if left[-1] != right[-2]:
        raise ModelError(f"the product of {list(a)} and {list(b)}")
    sizes = [*broadcast(left[:-2], right[:-2]), left[-2], right[-1]]
    if len(b) == 1:
        del sizes[-1]
    if len(a) == 1:
        del sizes[-1 if len(b) == 1 else -2]
    return [tuple(sizes)]


def broadcast(*shapes: Sizes) -> Sizes:
    """The common shape of tensors that are stretched to it."""
    rank = max(map(len, shapes))
    columns = zip(*((1,) * (rank - len(shape)) + shape for shape in shapes), strict=True)
    sizes = []
    for column in columns:
        others = {size for size in column if size != 1}
        if len(others) > 1:
            raise ModelError(f"shapes {', '.join(str(list(s)) for s in shapes)} do not fit")
        sizes.append(others.pop() if others else 1)
    return tuple(sizes)


def _concat(reads: Reads) -> list[Sizes]:
    shapes = reads.shapes()
    axis = position(reads.get("axis"), len(shapes[0]))
    rests = {(*shape[:axis], *shape[axis + 1 :]) for shape in shapes}
    if len(rests) > 1 or len({len(shape) for shape in shapes}) > 1:
        raise ModelError(f"shapes {', '.join(str(list(s)) for s in shapes)} do not fit")
    total = sum(shape[axis] for shape in shapes)
    return [(*shapes[0][:axis], total, *shapes[0][axis + 1 :])]


def _reduce(reads: Reads) -> list[Sizes]:
    shape = reads.shape()
    axes = reduced_axes(reads, len(shape))
    return [_without(shape, axes, reads.get("keepdims", 1))]


def _arg_max(reads: Reads) -> list[Sizes]:
    shape = reads.shape()
    axis = position(reads.get("axis", 0), len(shape))
    return [_without(shape, [axis], reads.get("keepdims", 1))]


def _without(shape: Sizes, axes: Sequence[int], keeps: int) -> Sizes:
    if keeps:
        return tuple(1 if axis in axes else size for axis, size in enumerate(shape))
    return tuple(size for axis, size in enumerate(shape) if axis not in axes)


def _global_pool(reads: Reads) -> list[Sizes]:
    shape = reads.shape()
    return [(*shape[:2], *[1] * (len(shape) - 2))]


def _resize(reads: Reads) -> list[Sizes]:
    shape = reads.shape("X")
    factors = resize_scales(reads, shape)
    sizes = reads.numbers("sizes")
    if not sizes:  # in float32, as others compute it
        results = np.floor(np.array(shape, np.float32) * np.array(factors, np.float32))
        return [tuple(int(size) for size in results)]
    if reads.get("keep_aspect_ratio_policy", "stretch") == "stretch":
        axes = positions(reads.get("axes") or range(len(shape)), len(shape))
        chosen = dict(zip(axes, sizes, strict=True))
        return [tuple(chosen.get(axis, size) for axis, size in enumerate(shape))]
    scaled = zip(shape, factors, strict=True)
    return [tuple(math.floor(size * factor + 0.5) for size, factor in scaled)]


def _depth_to_space(reads: Reads) -> list[Sizes]:
    batch, channels, height, width = _image(reads)
    factor = reads.get("blocksize")
    if factor < 1 or channels % factor**2:
        raise ModelError(f"blocksize={factor} for {channels} channels")
    return [(batch, channels // factor**2, height * factor, width * factor)]


def _space_to_depth(reads: Reads) -> list[Sizes]:
    batch, channels, height, width = _image(reads)
    factor = reads.get("blocksize")
    if factor < 1 or height % factor or width % factor:
        raise ModelError(f"blocksize={factor} for {height} rows and {width} columns")
    return [(batch, channels * factor**2, height // factor, width // factor)]


def _image(reads: Reads) -> Sizes:
    shape = reads.shape()
    if len(shape) != 4:
        raise ModelError(f"expected [N, C, H, W], got {list(shape)}")
    return shape


def _slice(reads: Reads) -> list[Sizes]:
    shape = reads.shape()
    parts = zip(shape, slice_of(reads, shape), strict=True)
    return [tuple(len(range(*part.indices(size))) for size, part in parts)]


def _split(reads: Reads) -> list[Sizes]:
    shape = reads.shape()
    axis = position(reads.get("axis", 0), len(shape))
    lengths = parts_of(reads, shape[axis])
    return [(*shape[:axis], length, *shape[axis + 1 :]) for length in lengths]


def pads_of(reads: Reads, rank: int) -> list[tuple[int, int]]:
    """How much the operator Pad adds before and after every dimension."""
    pads, axes = reads.numbers("pads") or [], reads.numbers("axes")
    axes = list(range(rank)) if axes is None else positions(axes, rank)
    if len(pads) != 2 * len(axes):
        raise ModelError(f"pads={pads} must have two numbers for each of {len(axes)} dimensions")
    sides = [(0, 0)] * rank
    for index, axis in enumerate(axes):
        sides[axis] = (pads[index], pads[index + len(axes)])
    return sides


def _pad(reads: Reads) -> list[Sizes]:
    shape = reads.shape()
    sides = zip(shape, pads_of(reads, len(shape)), strict=True)
    sizes = tuple(size + before + after for size, (before, after) in sides)
    if min(sizes, default=0) < 0:
        raise ModelError(f"{list(shape)} is cropped to {list(sizes)}")
    return [sizes]


def _flatten(reads: Reads) -> list[Sizes]:
    shape = reads.shape()
    axis = reads.get("axis", 1)
    axis = len(shape) if axis == len(shape) else position(axis, len(shape))
    return [(math.prod(shape[:axis]), math.prod(shape[axis:]))]


def permutation(reads: Reads, rank: int) -> list[int]:
    """The order of dimensions of the operator Transpose."""
    order = list(reads.get("perm") or range(rank)[::-1])
    if sorted(order) != list(range(rank)):
        raise ModelError(f"perm={order} must be an order of {rank} dimensions")
    return order


def _transpose(reads: Reads) -> list[Sizes]:
    shape = reads.shape()
    return [tuple(shape[axis] for axis in permutation(reads, len(shape)))]


# fmt: off
_SAME = frozenset({
    "BatchNormalization", "Cast", "Clip", "Dropout", "GroupNormalization",
    "HardSigmoid", "Identity", "InstanceNormalization", "LRN", "LayerNormalization", "LeakyRelu",
    "Log", "LogSoftmax", "PRelu", "Relu", "Selu", "Softmax", "Softsign", "Tanh",
    "ThresholdedRelu"
})
# fmt: on
_RULES: Mapping[str, Callable[[Reads], list[Sizes]]] = {
    **{
        op: lambda reads: [broadcast(*reads.shapes())] for op in ("Add", "Div", "Mul", "Pow", "Sub")
    },
    "ArgMax": _arg_max,
    "AveragePool": _pool,
    "Concat": _concat,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "DepthToSpace": _depth_to_space,
    "Flatten": _flatten,
    "Gemm": _gemm,
    "GlobalAveragePool": _global_pool,
    "GlobalMaxPool": _global_pool,
    "MatMul": _matmul,
    "MaxPool": _pool,
    "Pad": _pad,
    "ReduceMax": _reduce,
    "ReduceMean": _reduce,
    "Reshape": lambda reads: [reshaped(reads, reads.shape())],
    "Resize": _resize,
    "Slice": _slice,
    "SpaceToDepth": _space_to_depth,
    "Split": _split,
    "Squeeze": lambda reads: [squeezed(reads, reads.shape())],
    "Transpose": _transpose,
    "Unsqueeze": lambda reads: [unsqueezed(reads, reads.shape())],
}
