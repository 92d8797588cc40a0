# SPDX-License-Identifier: Apache-2.0
"""Computes ONNX operators on constants, with NumPy.

Exporters write such computations on shapes and weights. The bytes of each array are counted against
a budget before it is allocated, so that a small file cannot ask for much memory or time.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from qppengine.errors import ModelError
from qppengine.importers import onnx_shapes as shapes
from qppengine.importers.budget import Budget
from qppengine.importers.onnx_shapes import Reads

if TYPE_CHECKING:
    from collections.abc import Mapping

Tensor: TypeAlias = npt.NDArray[Any]


def is_foldable(op: str) -> bool:
    """Whether `fold` knows an operator."""
    return op in _FOLDS


def fold(op: str, reads: Reads, inputs: list[Tensor], budget: Budget) -> list[Tensor]:
    """The outputs of a node that reads constants. Raises `ModelError`."""
    with np.errstate(all="ignore"):
        result = _FOLDS[op](reads, inputs, budget)
    results = result if isinstance(result, list) else [np.asarray(result)]
    if op in _VIEWS:
        for copy in results:
            if not np.may_share_memory(copy, inputs[0]):
                budget.reserve(copy.size, copy.itemsize)
    return results


def _item_bytes(inputs: list[Tensor]) -> int:
    return max(x.itemsize for x in inputs)


_Fold: TypeAlias = Callable[[Reads, list[Tensor], Budget], "Tensor | list[Tensor]"]


def _elementwise(function: Callable[..., Any]) -> _Fold:
    def fold_elements(_: Reads, inputs: list[Tensor], budget: Budget) -> Tensor:
        elements = math.prod(shapes.broadcast(*(x.shape for x in inputs)))
        budget.reserve(elements, _item_bytes(inputs))
        return np.asarray(function(*inputs))

    return fold_elements


def _folded(function: Callable[..., Any]) -> _Fold:
    """Folds a variadic operator pair by pair."""

    def fold_pairs(_: Reads, inputs: list[Tensor], budget: Budget) -> Tensor:
        result, *others = inputs
        for other in others:
            elements = math.prod(shapes.broadcast(result.shape, other.shape))
            budget.reserve(elements, _item_bytes(inputs))
            result = np.asarray(function(result, other))
        return result

    return fold_pairs


def _divide(a: Tensor, b: Tensor) -> Tensor:
    if a.dtype.kind not in "iu":
        return np.asarray(a / b)
    if not b.all():
        raise ModelError("a division of integers by zero")
    quotient = a // b  # rounds down, ONNX towards zero
    return np.asarray(quotient + ((a % b != 0) & ((a < 0) != (b < 0))), a.dtype)


def _mod(reads: Reads, inputs: list[Tensor], budget: Budget) -> Tensor:
    a, b = inputs
    if a.dtype.kind in "iu" and not b.all():
        raise ModelError("a division of integers by zero")
    budget.reserve(math.prod(shapes.broadcast(a.shape, b.shape)), _item_bytes(inputs))
    return np.asarray((np.fmod if reads.get("fmod") else np.mod)(a, b))


def _power(a: Tensor, b: Tensor) -> Tensor:
    return np.asarray(np.power(a.astype(np.float64), b.astype(np.float64)).astype(a.dtype))


def _reciprocal(x: Tensor) -> Tensor:
    return np.asarray(1 / x, x.dtype)


def _erf(x: Tensor) -> Tensor:
    return np.asarray(np.vectorize(math.erf, otypes=[x.dtype])(x))


def _reduced(function: Callable[..., Any]) -> _Fold:
    def fold_reduction(reads: Reads, inputs: list[Tensor], budget: Budget) -> Tensor:
        x = inputs[0]
        axes = tuple(shapes.reduced_axes(reads, x.ndim))
        budget.spend(2 * x.nbytes)
        result = function(x, axis=axes, keepdims=bool(reads.get("keepdims", 1)))
        return np.asarray(result).astype(x.dtype)

    return fold_reduction


def _l2(x: Tensor, **options: Any) -> Tensor:
    return np.asarray(np.sqrt(np.sum(np.square(x), **options)))


def _cast(reads: Reads, inputs: list[Tensor], budget: Budget) -> Tensor:
    from onnx import helper

    target = helper.tensor_dtype_to_np_dtype(reads.get("to"))
    budget.reserve(inputs[0].size, max(target.itemsize, 4))
    result = inputs[0].astype(target)
    if target.name == "bfloat16":
        return result.astype(np.float32)
    if target.kind not in "biuf":
        raise ModelError(f"a cast to {target.name}; closest supported form: 8 to 64 bits")
    return result


def _constant(reads: Reads, _: list[Tensor], budget: Budget) -> Tensor:
    for attribute, kind in (
        ("value", None),
        ("value_int", np.int64),
        ("value_ints", np.int64),
        ("value_float", np.float32),
        ("value_floats", np.float32),
    ):
        value = reads.get(attribute)
        if value is not None:
            if not isinstance(value, (np.ndarray, int, float, list)):
                break
            result = np.asarray(value, kind)
            budget.reserve(result.size)
            return result
    raise ModelError(
        "a constant that is not a tensor of numbers; closest supported form: the attribute value"
    )


def _constant_of_shape(reads: Reads, inputs: list[Tensor], budget: Budget) -> Tensor:
    value = reads.get("value")
    fill = np.zeros(1, np.float32) if value is None else value
    if not isinstance(fill, np.ndarray) or fill.size != 1:
        raise ModelError("value must be a tensor of one element")
    return _filled(fill.ravel()[0], _sizes(inputs[0]), budget)


def _filled(value: Any, sizes: shapes.Sizes, budget: Budget) -> Tensor:
    budget.reserve(math.prod(sizes))
    return np.full(sizes, value)


def _sizes(x: Tensor) -> shapes.Sizes:
    sizes = tuple(int(size) for size in x.ravel())
    if x.dtype.kind not in "iu" or min(sizes, default=0) < 0:
        raise ModelError(f"{list(sizes)} is not a shape")
    return sizes


def _expand(_: Reads, inputs: list[Tensor], budget: Budget) -> Tensor:
    sizes = shapes.broadcast(inputs[0].shape, _sizes(inputs[1]))
    budget.reserve(math.prod(sizes), inputs[0].itemsize)
    return np.array(np.broadcast_to(inputs[0], sizes))


def _tile(_: Reads, inputs: list[Tensor], budget: Budget) -> Tensor:
    repeats = _sizes(inputs[1])
    if len(repeats) != inputs[0].ndim:
        raise ModelError(f"repeats {list(repeats)} of a tensor with {inputs[0].ndim} dimensions")
    budget.reserve(inputs[0].size * math.prod(repeats), inputs[0].itemsize)
    return np.tile(inputs[0], repeats)


def _range(_: Reads, inputs: list[Tensor], budget: Budget) -> Tensor:
    start, limit, delta = (x.item() for x in inputs)
    if not delta or not all(map(math.isfinite, (start, limit, delta))):
        raise ModelError(f"a range from {start} to {limit} in steps of {delta}")
    count = max(0, math.ceil((limit - start) / delta))
    budget.reserve(count)
    return np.asarray(start + delta * np.arange(count), inputs[0].dtype)


def _gather(reads: Reads, inputs: list[Tensor], budget: Budget) -> Tensor:
    data, indices = inputs
    axis = shapes.position(reads.get("axis", 0), data.ndim)
    size = data.shape[axis]
    if indices.dtype.kind not in "iu" or (
        indices.size and not (indices.min() >= -size and indices.max() < size)
    ):
        raise ModelError(f"indices beyond the {size} elements of dimension {axis}")
    budget.reserve(indices.size * (data.size // size if size else 0), data.itemsize)
    return np.take(data, indices, axis)


def _concat(reads: Reads, inputs: list[Tensor], budget: Budget) -> Tensor:
    budget.reserve(sum(x.size for x in inputs), _item_bytes(inputs))
    return np.concatenate(inputs, reads.get("axis"))


def _pad(reads: Reads, inputs: list[Tensor], budget: Budget) -> Tensor:
    x = inputs[0]
    sides = shapes.pads_of(reads, x.ndim)
    fill = reads.constant("constant_value")
    if reads.get("mode", "constant") != "constant" or min(map(min, sides), default=0) < 0:
        raise ModelError("a constant padded by other than constant pixels")
    budget.reserve(math.prod(n + sum(side) for n, side in zip(x.shape, sides, strict=True)))
    return np.pad(x, sides, constant_values=0 if fill is None else fill.item())


def _matmul(reads: Reads, inputs: list[Tensor], budget: Budget) -> Tensor:
    a, b = inputs
    sizes = shapes.infer_shapes("MatMul", reads)[0]
    budget.spend(math.prod(sizes) * a.shape[-1])  # products, rather than bytes
    budget.reserve(math.prod(sizes), _item_bytes(inputs))
    return np.asarray(np.matmul(a, b))


def _split(reads: Reads, inputs: list[Tensor], _: Budget) -> list[Tensor]:
    x = inputs[0]
    axis = shapes.position(reads.get("axis", 0), x.ndim)
    return np.split(x, np.cumsum(shapes.parts_of(reads, x.shape[axis]))[:-1], axis)


def _flatten(reads: Reads, inputs: list[Tensor], _: Budget) -> Tensor:
    return inputs[0].reshape(shapes.infer_shapes("Flatten", reads)[0])


_FOLDS: Mapping[str, _Fold] = {
    "Abs": _elementwise(np.abs),
    "Add": _elementwise(np.add),
    "And": _elementwise(np.logical_and),
    "Cast": _cast,
    "Ceil": _elementwise(np.ceil),
    "Concat": _concat,
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
    "Div": _elementwise(_divide),
    "Equal": _elementwise(np.equal),
    "Erf": _elementwise(_erf),
    "Exp": _elementwise(np.exp),
    "Expand": _expand,
    "Flatten": _flatten,
    "Floor": _elementwise(np.floor),
    "Gather": _gather,
    "Greater": _elementwise(np.greater),
    "GreaterOrEqual": _elementwise(np.greater_equal),
    "Identity": lambda _, inputs, __: inputs[0],
    "Less": _elementwise(np.less),
    "LessOrEqual": _elementwise(np.less_equal),
    "Log": _elementwise(np.log),
    "MatMul": _matmul,
    "Max": _folded(np.maximum),
    "Min": _folded(np.minimum),
    "Mod": _mod,
    "Mul": _elementwise(np.multiply),
    "Neg": _elementwise(np.negative),
    "Not": _elementwise(np.logical_not),
    "Or": _elementwise(np.logical_or),
    "Pad": _pad,
    "Pow": _elementwise(_power),
    "Range": _range,
    "Reciprocal": _elementwise(_reciprocal),
    "ReduceL2": _reduced(_l2),
    "ReduceMax": _reduced(np.max),
    "ReduceMean": _reduced(np.mean),
    "ReduceMin": _reduced(np.min),
    "ReduceProd": _reduced(np.prod),
    "ReduceSum": _reduced(np.sum),
    "Reshape": lambda reads, inputs, _: inputs[0].reshape(shapes.reshaped(reads, inputs[0].shape)),
    "Round": _elementwise(np.rint),
    "Sign": _elementwise(np.sign),
    "Slice": lambda reads, inputs, _: inputs[0][shapes.slice_of(reads, inputs[0].shape)],
    "Split": _split,
    "Sqrt": _elementwise(np.sqrt),
    "Squeeze": lambda reads, inputs, _: inputs[0].reshape(shapes.squeezed(reads, inputs[0].shape)),
    "Sub": _elementwise(np.subtract),
    "Sum": _folded(np.add),
    "Tile": _tile,
    "Transpose": lambda reads, inputs, _: inputs[0].transpose(
        shapes.permutation(reads, inputs[0].ndim)
    ),
    "Unsqueeze": lambda reads, inputs, _: inputs[0].reshape(
        shapes.unsqueezed(reads, inputs[0].shape)
    ),
    "Where": _elementwise(np.where),
}
_VIEWS = frozenset({"Flatten", "Reshape", "Squeeze", "Unsqueeze"})
