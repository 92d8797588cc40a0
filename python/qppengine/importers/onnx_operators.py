# SPDX-License-Identifier: Apache-2.0
"""Importers of ONNX operators. Inputs and attributes bear the names of ONNX's schemas."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from qppengine.errors import UnsupportedError
from qppengine.importers.program import AXES, Ref
from qppengine.importers.registry import Operation, Placed, importer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from qppengine.graph import Array, GraphBuilder

_FLOAT32_MAX = float(np.finfo(np.float32).max)


# ------------------------------------------------------------------- convolutions, linear layers


@importer("onnx.Conv")
def conv(operation: Operation, graph: GraphBuilder) -> str:
    """A convolution of images or, with a kernel of height 1, of sequences."""
    weight = _tensor(operation, "W")
    window = _Window.of(operation, "X", weight.shape[2:])
    return graph.conv2d(
        _image(operation, "X"),
        weight.reshape(*weight.shape[:2], *window.kernel),
        operation.tensor("B"),
        stride=window.stride,
        padding=window.padding(),
        dilation=window.dilation,
        groups=operation.get("group"),
        name=operation.name,
    )


@importer("onnx.Gemm")
def gemm(operation: Operation, graph: GraphBuilder) -> str:
    """``alpha * A @ B + beta * C`` of rows A: a 1x1 convolution of single pixels."""
    if operation.get("transA"):
        raise UnsupportedError("transA=1; nearest is transA=0")
    matrix = _tensor(operation, "B")
    weight = operation.get("alpha") * (matrix if operation.get("transB") else matrix.T)
    bias = None
    if operation.get("C") is not None:
        offset = _tensor(operation, "C")
        if offset.size not in (1, offset.shape[-1] if offset.ndim else 1):
            raise UnsupportedError("C must be one row; nearest is C of shape [N]")
        bias = np.broadcast_to(operation.get("beta") * offset.ravel(), len(weight))
    return graph.conv2d(_rows(operation, "A"), weight[:, :, None, None], bias, name=operation.name)


@importer("onnx.MatMul")
def matmul(operation: Operation, graph: GraphBuilder) -> str:
    """The product of channels with a constant matrix ``[C, O]``: a 1x1 convolution."""
    matrix = _tensor(operation, "B")
    if matrix.ndim != 2:
        raise UnsupportedError("B must be a matrix; nearest is Gemm or Conv")
    rows = _rows(operation, "A")
    return graph.conv2d(rows, matrix.T[:, :, None, None], name=operation.name)


@importer("onnx.BatchNormalization")
def batch_normalization(operation: Operation, graph: GraphBuilder) -> str:
    """Normalization by given statistics."""
    if operation.get("training_mode"):
        raise UnsupportedError("statistics of the batch; nearest is training_mode=0")
    return graph.batch_norm(
        _image(operation, "X"),
        _tensor(operation, "scale"),
        _tensor(operation, "B"),
        _tensor(operation, "input_mean"),
        _tensor(operation, "input_var"),
        eps=operation.get("epsilon"),
        name=operation.name,
    )


# ------------------------------------------------------------------------------------ activations


@importer("onnx.Relu")
def relu(operation: Operation, graph: GraphBuilder) -> str:
    """``max(X, 0)``."""
    return graph.relu(operation.value("X"), name=operation.name)


@importer("onnx.Tanh")
def tanh(operation: Operation, graph: GraphBuilder) -> str:
    """The hyperbolic tangent."""
    return graph.tanh(operation.value("input"), name=operation.name)


@importer("onnx.Sigmoid", "onnx.HardSwish")
def function(operation: Operation, graph: GraphBuilder) -> str:
    """The functions that bear the operator's name."""
    name = operation.call.target.removeprefix("onnx.").lower()
    return graph.function(operation.value("X"), name, name=operation.name)


@importer("onnx.HardSigmoid")
def hard_sigmoid(operation: Operation, graph: GraphBuilder) -> str:
    """``min(max(alpha * X + beta, 0), 1)``, with the slope that mobile networks use."""
    alpha, beta = operation.get("alpha"), operation.get("beta")
    if not (math.isclose(alpha, 1 / 6, rel_tol=1e-5) and beta == 0.5):
        raise UnsupportedError(f"alpha={alpha:g}, beta={beta:g}; nearest is alpha=1/6, beta=0.5")
    return graph.function(operation.value("X"), "hardsigmoid", name=operation.name)


@importer("onnx.LeakyRelu")
def leaky_relu(operation: Operation, graph: GraphBuilder) -> str:
    """A parametric ReLU with one constant slope."""
    return graph.prelu(operation.value("X"), [operation.get("alpha")], name=operation.name)


@importer("onnx.PRelu")
def prelu(operation: Operation, graph: GraphBuilder) -> str:
    """A parametric ReLU with one slope, or one for every channel."""
    slopes = _by_channel(operation, "slope", "X")
    return graph.prelu(operation.value("X"), slopes, name=operation.name)


@importer("onnx.Clip")
def clip(operation: Operation, graph: GraphBuilder) -> str:
    """A clamp whose missing bounds are the largest finite numbers; relu where it is one."""
    bounds = [operation.tensor(name) for name in ("min", "max")]
    if any(bound is not None and bound.size != 1 for bound in bounds):
        raise UnsupportedError("min and max must be single numbers")
    low, high = (
        default if bound is None else float(bound.item())
        for bound, default in zip(bounds, (-math.inf, math.inf), strict=True)
    )
    if low == 0 and high >= _FLOAT32_MAX:
        return graph.relu(operation.value("input"), name=operation.name)
    low, high = min(max(low, -_FLOAT32_MAX), high), min(high, _FLOAT32_MAX)
    return graph.clamp(operation.value("input"), low, high, name=operation.name)


# ------------------------------------------------------------------------------------- arithmetic


@importer("onnx.Add")
def add(operation: Operation, graph: GraphBuilder) -> str:
    """A sum of two tensors."""
    x, y = _two_tensors(operation, commutes=True)
    return graph.add(x, y, name=operation.name)


@importer("onnx.Sub")
def sub(operation: Operation, graph: GraphBuilder) -> str:
    """A difference of two tensors."""
    x, y = _two_tensors(operation, commutes=False)
    return graph.sub(x, y, name=operation.name)


@importer("onnx.Mul")
def mul(operation: Operation, graph: GraphBuilder) -> str:
    """A product of two tensors."""
    x, y = _two_tensors(operation, commutes=True)
    return graph.mul(x, y, name=operation.name)


@importer("onnx.Concat")
def concat(operation: Operation, graph: GraphBuilder) -> str:
    """Channels of several tensors."""
    values = operation.value_list("inputs")
    if operation.axis("inputs", operation.get("axis")) != 1:
        raise UnsupportedError(f"axis={operation.get('axis')}; nearest is axis=1, the channels")
    return graph.concat(*values, name=operation.name)


# ---------------------------------------------------------------------------------------- windows


@importer("onnx.MaxPool")
def max_pool(operation: Operation, graph: GraphBuilder) -> str:
    """Maxima of windows."""
    window = _Window.of(operation, "X", operation.get("kernel_shape"))
    if window.dilation != (1, 1):
        raise UnsupportedError("dilations; nearest is dilations=1")
    return graph.max_pool2d(
        _image(operation, "X"),
        window.kernel,
        stride=window.stride,
        padding=window.padding(),
        ceil_mode=bool(operation.get("ceil_mode")),
        name=operation.name,
    )


@importer("onnx.AveragePool")
def average_pool(operation: Operation, graph: GraphBuilder) -> str:
    """Means of windows."""
    window = _Window.of(operation, "X", operation.get("kernel_shape"))
    if window.dilation != (1, 1):
        raise UnsupportedError("dilations; nearest is dilations=1")
    return graph.avg_pool2d(
        _image(operation, "X"),
        window.kernel,
        stride=window.stride,
        padding=window.padding(),
        ceil_mode=bool(operation.get("ceil_mode")),
        count_include_pad=bool(operation.get("count_include_pad")),
        name=operation.name,
    )


@importer("onnx.GlobalAveragePool")
def global_average_pool(operation: Operation, graph: GraphBuilder) -> str:
    """The mean of every channel."""
    return graph.global_avg_pool(_image(operation, "X"), name=operation.name)


@importer("onnx.ReduceMean")
def reduce_mean(operation: Operation, graph: GraphBuilder) -> str | Placed:
    """The mean over height and width."""
    reduced = _axes(operation, "data")
    if sorted(reduced) != [2, 3]:
        raise UnsupportedError(f"axes={operation.get('axes')}; nearest is axes=[2, 3]")
    value = graph.global_avg_pool(operation.value("data"), name=operation.name)
    return Placed(value, _kept(operation, "data", reduced))


@importer("onnx.Resize")
def resize(operation: Operation, graph: GraphBuilder) -> str:
    """Resizing of height and width, in any form that reads what one of the engine's reads."""
    scales = operation.tensor("scales")
    sizes, targets = operation.tensor_shape("X"), operation.output_shape()
    dimensions = operation.get("axes") or list(range(len(sizes)))
    if scales is not None and scales.size > 0:
        factors = dict(zip(dimensions, map(float, scales), strict=True))
    elif None in targets[2:]:
        raise UnsupportedError("sizes known at run time only; nearest is scales")
    else:
        factors = {}
    if sizes[:2] != targets[:2] or len(sizes) != 4 or operation.get("antialias"):
        raise UnsupportedError("antialias, or a change of channels; nearest is height and width")
    scale = [factors.get(dimension, 1.0) for dimension in (2, 3)]
    axes = [
        _ResizedAxis(size, target, factor if factors else None)
        for size, target, factor in zip(sizes[2:], targets[2:], scale, strict=True)
    ]
    return graph.resize(
        _image(operation, "X"),
        size=None if factors else [target or 0 for target in targets[2:]],
        scale=scale if factors else None,
        name=operation.name,
        **_resize_mode(operation, axes),
    )


class _ResizedAxis(NamedTuple):
    """Height or width before and after, where they are known, and the factor, if that is given."""

    size: int | None
    target: int | None
    factor: float | None

    def places(self, coordinates: str) -> NDArray[np.float64]:
        """Where on the image the pixels of the result lie, from 0 to size - 1."""
        size = self.size or 16  # any size shows the pattern
        scale = self.factor or (self.target or size) / size
        target = self.target or math.floor(size * scale)
        index = np.arange(target)
        length = size * scale  # as ONNX has it: no whole number
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
                f"coordinate_transformation_mode={coordinates}; nearest is half_pixel"
            )
        return np.clip(places[coordinates], 0, size - 1)


_ROUNDINGS: Mapping[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "floor": np.floor,
    "ceil": np.ceil,
    "round_prefer_floor": lambda places: np.ceil(places - 0.5),
    "round_prefer_ceil": lambda places: np.floor(places + 0.5),
}


def _resize_mode(operation: Operation, axes: Sequence[_ResizedAxis]) -> dict[str, Any]:
    """The form of the engine's that reads the same pixels."""
    mode = operation.get("mode")
    coordinates = operation.get("coordinate_transformation_mode")
    if mode == "nearest":
        rounding = operation.get("nearest_mode")
        if all(
            np.array_equal(
                _ROUNDINGS[rounding](axis.places(coordinates)),
                np.floor(axis.places("asymmetric")),
            )
            for axis in axes
        ):
            return {"mode": "nearest"}
        raise UnsupportedError(
            f"nearest with {coordinates} and {rounding}; nearest is asymmetric and floor"
        )
    if mode != "linear":
        raise UnsupportedError(f"mode={mode}; nearest is linear")
    for aligned, own in ((False, "half_pixel"), (True, "engine_align_corners")):
        if all(np.allclose(axis.places(coordinates), axis.places(own)) for axis in axes):
            return {"mode": "bilinear", "align_corners": aligned}
    raise UnsupportedError(f"linear with {coordinates}; nearest is half_pixel or align_corners")


@importer("onnx.DepthToSpace")
def depth_to_space(operation: Operation, graph: GraphBuilder) -> str:
    """Channels to space."""
    if operation.get("mode") != "CRD":
        raise UnsupportedError("mode=DCR; nearest is mode=CRD")
    factor = operation.get("blocksize")
    return graph.pixel_shuffle(_image(operation, "input"), factor, name=operation.name)


# ---------------------------------------------------------------------------------------- shapes


@importer("onnx.Flatten")
def flatten(operation: Operation, graph: GraphBuilder) -> str:
    """All but the batch in one dimension."""
    rank = len(operation.axes("input"))
    if rank < 2 or operation.get("axis") % rank != 1:
        raise UnsupportedError(f"axis={operation.get('axis')}; nearest is axis=1")
    return _flattened(operation, graph, "input")


@importer("onnx.Reshape")
def reshape(operation: Operation, graph: GraphBuilder) -> str:
    """Flattening, written as a change of shape, or one that changes nothing."""
    before, after = operation.tensor_shape("data"), operation.output_shape()
    if before == after and before.count(None) <= 1:
        return operation.value("data")
    flat = None if None in before[1:] else math.prod(n or 0 for n in before[1:])
    if len(after) == 2 and after[1] == flat is not None and after[0] in (before[0], None):
        return _flattened(operation, graph, "data")
    raise UnsupportedError(f"{list(before)} to {list(after)}; nearest is Flatten with axis=1")


@importer("onnx.Squeeze")
def squeeze(operation: Operation, graph: GraphBuilder) -> Placed:
    """Forgets dimensions of size 1."""
    axes = operation.axes("data")
    if operation.get("axes") is None:
        sizes = zip(axes, operation.tensor_shape("data"), strict=True)
        removed = [axis for axis, size in sizes if size == 1]
    else:
        removed = _axes(operation, "data")
    return Placed(operation.value("data"), tuple(axis for axis in axes if axis not in removed))


@importer("onnx.Unsqueeze")
def unsqueeze(operation: Operation, graph: GraphBuilder) -> Placed:
    """Gives back dimensions of size 1, on axes that no other dimension lies on."""
    axes, added = operation.axes("data"), operation.get("axes")
    rank = len(axes) + len(added)
    places = {place % rank for place in added}
    for candidate in (AXES.get(rank, ()), *itertools.combinations(AXES[4], rank)):
        if tuple(a for place, a in enumerate(candidate) if place not in places) == axes:
            return Placed(operation.value("data"), candidate)
    raise UnsupportedError(f"axes={added}; nearest is Flatten")


@importer("onnx.Transpose")
def transpose(operation: Operation, graph: GraphBuilder) -> Placed:
    """Another order of the dimensions: only their names change, not the image."""
    axes = operation.axes("data")
    order = operation.get("perm", list(range(len(axes)))[::-1])
    return Placed(operation.value("data"), tuple(axes[dimension] for dimension in order))


@importer("onnx.Identity", "onnx.Dropout", "onnx.Cast")
def identity(operation: Operation, graph: GraphBuilder) -> str:
    """Operators that return the tensor they are given, as far as the engine sees it."""
    if operation.get("training_mode"):
        raise UnsupportedError("dropout that trains; nearest is training_mode=false")
    if operation.get("to", 1) not in (1, 10, 11, 16):  # FLOAT, FLOAT16, DOUBLE, BFLOAT16
        raise UnsupportedError("a cast to integers; nearest is a floating-point type")
    argument = next(name for name, a in operation.call.arguments.items() if isinstance(a, Ref))
    return operation.value(argument)


# ---------------------------------------------------------------------------------------- helpers


class _Window(NamedTuple):
    """The geometry of a kernel that moves over an image; pairs are height, width."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    begins: tuple[int, ...]
    ends: tuple[int, ...]

    @classmethod
    def of(cls, operation: Operation, argument: str, kernel: Sequence[int]) -> _Window:
        """What the attributes say; one dimension is the width of an image of height 1."""
        rank = len(kernel)
        size = operation.tensor_shape(argument)[2:]
        if rank not in (1, 2) or len(size) != rank:
            raise UnsupportedError(f"{rank} spatial dimensions; nearest is 2")
        stride = operation.get("strides", [1] * rank)
        dilation = operation.get("dilations", [1] * rank)
        pads = operation.get("pads", [0] * 2 * rank)
        begins, ends = pads[:rank], pads[rank:]
        mode = operation.get("auto_pad")
        if mode == "VALID":
            begins = ends = [0] * rank
        elif mode != "NOTSET":
            spans = [step * (n - 1) + 1 for step, n in zip(dilation, kernel, strict=True)]
            total = [_same(*sizes) for sizes in zip(size, spans, stride, strict=True)]
            small, large = [n // 2 for n in total], [n - n // 2 for n in total]
            begins, ends = (small, large) if mode == "SAME_UPPER" else (large, small)
        flat = [(1, 1, 1, 0, 0)] * (2 - rank)
        rows = [*flat, *zip(kernel, stride, dilation, begins, ends, strict=True)]
        return cls(*zip(*rows, strict=True))

    def padding(self) -> tuple[int, ...]:
        """The padding of both sides."""
        if self.begins != self.ends:
            raise UnsupportedError(
                f"padding {self.begins} before and {self.ends} behind; nearest is one for both"
            )
        return self.begins


def _same(size: int | None, span: int, stride: int) -> int:
    """The padding that makes the output as large as the image, over the stride."""
    if stride == 1:
        return span - 1
    if size is None:
        raise UnsupportedError("auto_pad of any size; nearest is pads")
    return max((math.ceil(size / stride) - 1) * stride + span - size, 0)


def _image(operation: Operation, argument: str) -> str:
    """A value whose dimensions lie in the order of an image's, batch and channels first."""
    axes = operation.axes(argument)
    if axes[:2] != (0, 1) or axes != tuple(sorted(axes)):
        raise UnsupportedError(f"{argument} is transposed; nearest is the order N, C, H, W")
    return operation.value(argument)


def _rows(operation: Operation, argument: str) -> str:
    """A value of one row of channels for every sample."""
    if operation.axes(argument) != AXES[2]:
        raise UnsupportedError(f"{argument} must be [N, C]; nearest is Flatten before it")
    return operation.value(argument)


def _tensor(operation: Operation, argument: str) -> Array:
    """Weights that have to be there."""
    tensor = operation.tensor(argument)
    if tensor is None:
        raise UnsupportedError(f"{argument} must be a constant")
    return tensor


def _by_channel(operation: Operation, argument: str, image: str) -> Array:
    """A constant with one number, or one for every channel of an image, as a vector."""
    tensor = _tensor(operation, argument)
    axes = operation.axes(image)
    sizes = dict(zip(axes[::-1], tensor.shape[::-1], strict=False))
    if tensor.ndim > len(axes) or any(n != 1 for axis, n in sizes.items() if axis != 1):
        raise UnsupportedError(f"{argument} {list(tensor.shape)}; nearest is one for every channel")
    return tensor.ravel()


def _two_tensors(operation: Operation, *, commutes: bool) -> tuple[str, str]:
    """Both operands; one per channel comes second."""
    axes = [operation.axes(argument) for argument in ("A", "B")]
    rank = min(map(len, axes))
    if axes[0][len(axes[0]) - rank :] != axes[1][len(axes[1]) - rank :]:
        raise UnsupportedError("operands that do not lie alike; nearest is two of one shape")
    sizes = [
        math.prod(n or 0 for axis, n in zip(places, shape, strict=True) if axis in (2, 3))
        for places, shape in zip(axes, map(operation.tensor_shape, ("A", "B")), strict=True)
    ]
    x, y = operation.value("A"), operation.value("B")
    return (y, x) if commutes and sizes[0] == 1 != sizes[1] else (x, y)


def _axes(operation: Operation, argument: str) -> list[int]:
    """The axes of the image that the dimensions of the argument "axes" lie on; all by default."""
    dimensions = operation.get("axes")
    if not dimensions:
        return list(operation.axes(argument))
    return [operation.axis(argument, dimension) for dimension in dimensions]


def _kept(operation: Operation, argument: str, reduced: Sequence[int]) -> tuple[int, ...]:
    """The axes of an argument of which some are reduced."""
    keeps = operation.get("keepdims")
    return tuple(axis for axis in operation.axes(argument) if keeps or axis not in reduced)


def _flattened(operation: Operation, graph: GraphBuilder, argument: str) -> str:
    axes = operation.axes(argument)
    if axes[0] != 0 or axes != tuple(sorted(axes)):
        raise UnsupportedError(f"{argument} is transposed; nearest is the order N, C, H, W")
    value = operation.value(argument)
    return value if axes == AXES[2] else graph.flatten(value, name=operation.name)
