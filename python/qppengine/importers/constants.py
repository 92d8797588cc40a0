# SPDX-License-Identifier: Apache-2.0
"""Computes the calls of a PyTorch program that depend on constants only, with NumPy.

Functions have the parameters of ATen's operators, by the names of native_functions.yaml. Results
get the dtype that the program states.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from qppengine.errors import ModelError, UnsupportedError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from qppengine.importers.program import Call
    from qppengine.ir import Shape

Constant: TypeAlias = "npt.NDArray[Any]"
Dims: TypeAlias = "int | Sequence[int] | None"

# Elements of one result, and multiplications of a matrix product: far more than networks need.
_MAX_ELEMENTS = 2**26
_MAX_PRODUCTS = 2**32

# Element by element, with NumPy's broadcasting, which is PyTorch's.
_ELEMENTWISE: Mapping[str, Callable[..., Any]] = {
    "add": lambda self, other, alpha=1: self + alpha * other,
    "sub": lambda self, other, alpha=1: self - alpha * other,
    "rsub": lambda self, other, alpha=1: other - alpha * self,
    "mul": lambda self, other: self * other,
    "div": lambda self, other, rounding_mode=None: _divide(self, other, rounding_mode),
    "true_divide": lambda self, other: self / other,
    "floor_divide": lambda self, other: self // other,
    "remainder": lambda self, other: self % other,
    "pow": lambda self, exponent: np.power(np.asarray(self, np.float64), exponent),
    "square": np.square,
    "neg": lambda self: -self,
    "abs": lambda self: np.abs(self),
    "sign": lambda self: np.sign(self),
    "exp": lambda self: np.exp(self),
    "log": lambda self: np.log(self),
    "log2": lambda self: np.log2(self),
    "sqrt": lambda self: np.sqrt(self),
    "rsqrt": lambda self: 1 / np.sqrt(self),
    "reciprocal": lambda self: 1 / self,
    "sin": lambda self: np.sin(self),
    "cos": lambda self: np.cos(self),
    "tanh": lambda self: np.tanh(self),
    "sigmoid": lambda self: np.tanh(self / 2) / 2 + 0.5,
    "relu": lambda self: np.maximum(self, 0),
    "softplus": lambda self, beta=1, threshold=20: np.where(
        self * beta > threshold, self, np.logaddexp(0, self * beta) / beta
    ),
    "floor": lambda self: np.floor(self),
    "ceil": lambda self: np.ceil(self),
    "round": lambda self, decimals=0: np.round(self, decimals),
    "trunc": lambda self: np.trunc(self),
    "clamp": lambda self, low=None, high=None: _clamp(self, low, high),
    "clamp_min": lambda self, low: np.maximum(self, low),
    "clamp_max": lambda self, high: np.minimum(self, high),
    "maximum": lambda self, other: np.maximum(self, other),
    "minimum": lambda self, other: np.minimum(self, other),
    "eq": lambda self, other: self == other,
    "ne": lambda self, other: self != other,
    "lt": lambda self, other: self < other,
    "le": lambda self, other: self <= other,
    "gt": lambda self, other: self > other,
    "ge": lambda self, other: self >= other,
    "logical_not": lambda self: np.logical_not(self),
    "logical_and": lambda self, other: np.logical_and(self, other),
    "logical_or": lambda self, other: np.logical_or(self, other),
    "bitwise_not": lambda self: ~self,
    "bitwise_and": lambda self, other: self & other,
    "bitwise_or": lambda self, other: self | other,
    "__and__": lambda self, other: self & other,
    "__or__": lambda self, other: self | other,
    "where": lambda condition, self, other: np.where(condition, self, other),
    "masked_fill": lambda self, mask, value: np.where(mask, value, self),
    "lerp": lambda self, end, weight: self + weight * (end - self),
    "clone": lambda self: self,
    "to": lambda self, other=None: self,
    "_to_copy": lambda self: self,
    "type_as": lambda self, other: self,
    "contiguous": lambda self: self,
    "lift_fresh_copy": lambda self: self,
    "copy": lambda self, src: np.broadcast_to(src, self.shape),
    "fill": lambda self, value: np.broadcast_to(value, self.shape),
    "zero": lambda self: np.broadcast_to(0, self.shape),
}

# Of a shape alone, that of the result; arguments that are tensors lend it only theirs.
_CREATIONS: Mapping[str, Callable[..., Any]] = {
    **dict.fromkeys(("zeros", "zeros_like", "new_zeros"), lambda **rest: 0),
    **dict.fromkeys(("ones", "ones_like", "new_ones"), lambda **rest: 1),
    **dict.fromkeys(("empty", "empty_like", "new_empty", "empty_permuted"), lambda **rest: 0),
    **dict.fromkeys(("full", "full_like", "new_full"), lambda fill_value, **rest: fill_value),
    "scalar_tensor": lambda s: s,
}

# All others, which check the size of their result where it exceeds that of their operands.
_OTHERS: Mapping[str, Callable[..., Any]] = {
    "arange": lambda end, start=0, step=1: _arange(start, end, step),
    "linspace": lambda start, end, steps: _linspace(start, end, steps),
    "eye": lambda n, m=None: _eye(n, n if m is None else m),
    "select": lambda self, dim, index: np.take(self, index, dim),
    "slice": lambda self, dim=0, start=None, end=None, step=1: self[
        _part(self, dim, start, end, step)
    ],
    "narrow": lambda self, dim, start, length: self[_part(self, dim, start, start + length, 1)],
    "slice_scatter": lambda self, src, dim=0, start=None, end=None, step=1: _scatter(
        self, src, _part(self, dim, start, end, step)
    ),
    "select_scatter": lambda self, src, dim, index: _scatter(
        self, src, (*[slice(None)] * (dim % self.ndim), index)
    ),
    "permute": lambda self, dims: self.transpose(dims),
    "transpose": lambda self, dim0, dim1: self.swapaxes(dim0, dim1),
    "swapaxes": lambda self, axis0, axis1: self.swapaxes(axis0, axis1),
    "swapdims": lambda self, dim0, dim1: self.swapaxes(dim0, dim1),
    "t": lambda self: self.T,
    "numpy_T": lambda self: self.T,
    "mT": lambda self: self.swapaxes(-1, -2),
    "flip": lambda self, dims: np.flip(self, dims),
    "roll": lambda self, shifts, dims=None: np.roll(self, shifts, dims or None),
    "tril": lambda self, diagonal=0: np.tril(self, diagonal),
    "triu": lambda self, diagonal=0: np.triu(self, diagonal),
    "unbind": lambda self, dim=0: list(np.moveaxis(self, dim, 0)),
    "chunk": lambda self, chunks, dim=0: _split(self, -(-self.shape[dim] // chunks), dim),
    "split": lambda self, split_size, dim=0: _split(self, split_size, dim),
    "split_with_sizes": lambda self, split_sizes, dim=0: np.split(
        self, np.cumsum(split_sizes)[:-1].tolist(), dim
    ),
    "repeat": lambda self, repeats: _tile(self, repeats),
    "tile": lambda self, dims: _tile(self, dims),
    "repeat_interleave": lambda self, repeats, dim=None: _repeat(self, repeats, dim),
    "cat": lambda tensors, dim=0: _join(np.concatenate, tensors, dim),
    "stack": lambda tensors, dim=0: _join(np.stack, tensors, dim),
    "meshgrid": lambda tensors, indexing="ij": np.meshgrid(*tensors, indexing=indexing, copy=False),
    "index_select": lambda self, dim, index: np.take(self, _checked(self, dim, index), dim),
    "sum": lambda self, dim=None, keepdim=False: self.sum(_dims(dim), keepdims=keepdim),
    "mean": lambda self, dim=None, keepdim=False: self.mean(_dims(dim), keepdims=keepdim),
    "amax": lambda self, dim=None, keepdim=False: self.max(_dims(dim), keepdims=keepdim),
    "amin": lambda self, dim=None, keepdim=False: self.min(_dims(dim), keepdims=keepdim),
    "prod": lambda self, dim=None, keepdim=False: self.prod(_dims(dim), keepdims=keepdim),
    "cumsum": lambda self, dim: self.cumsum(dim),
    "var": lambda self, dim=None, **options: _variance(self, dim, **options),
    "std": lambda self, dim=None, **options: np.sqrt(_variance(self, dim, **options)),
    "norm": lambda self, p=2, dim=None, keepdim=False: _norm(self, p, dim, keepdim),
    "linalg_vector_norm": lambda self, p=2, dim=None, keepdim=False: _norm(self, p, dim, keepdim),
    "softmax": lambda self, dim: _softmax(self, dim),
    "_weight_norm": lambda v, g, dim=0: v * (g / _norm(v, 2, _others(v, dim), True)),
    "matmul": lambda self, other: _product(self, other),
    "mm": lambda self, mat2: _product(self, mat2),
    "mv": lambda self, vec: _product(self, vec),
    "dot": lambda self, tensor: _product(self, tensor),
    "vdot": lambda self, other: _product(self, other),
}

# Other sizes of the same elements: those of the result.
_RESHAPES = frozenset(
    {
        "_unsafe_view",
        "flatten",
        "ravel",
        "reshape",
        "reshape_as",
        "squeeze",
        "unflatten",
        "unsqueeze",
        "view",
        "view_as",
    }
)
# Overloads that do something else than their operator, such as to read bytes as another dtype.
_OTHER_OVERLOADS = frozenset({"aten.view.dtype"})
_EXPANSIONS = frozenset({"broadcast_to", "expand", "expand_as"})

# Arguments that do not describe elements; the dtype of a result is that of the program.
_IGNORED = frozenset(
    {
        "copy",
        "device",
        "dtype",
        "generator",
        "implicit",
        "layout",
        "memory_format",
        "non_blocking",
        "pin_memory",
    }
)

# Parameters that Python has functions of the name of.
_RENAMED = {"max": "high", "min": "low", "ord": "p"}


def can_fold(call: Call) -> bool:
    """Whether `fold` computes the results of a call that reads constants only."""
    if not call.target.startswith("aten.") or call.target in _OTHER_OVERLOADS:
        return False
    known = (_ELEMENTWISE, _CREATIONS, _OTHERS, _RESHAPES, _EXPANSIONS)
    return any(call.op in operators for operators in known)


def reads_shapes_only(call: Call) -> bool:
    """Whether no element of a tensor that a call reads matters, but its shape."""
    return call.target.startswith("aten.") and call.op in _CREATIONS


def fold(
    call: Call,
    arguments: Mapping[str, Any],
    shapes: Sequence[Shape],
    dtypes: Sequence[np.dtype[Any]],
) -> list[Constant]:
    """The results of a call, of which the program states the shapes and dtypes.

    Raises `UnsupportedError` for results of open or enormous size, `ModelError` for others than the
    program states.
    """
    sizes = [tuple(n for n in shape if n is not None) for shape in shapes]
    if any(len(known) != len(shape) for known, shape in zip(sizes, shapes, strict=True)):
        raise UnsupportedError(
            "a constant whose size depends on that of the input",
            closest="an export with fixed sizes",
        )
    for known in sizes:
        _bound(math.prod(known))
    given = {
        _RENAMED.get(name, name): value for name, value in arguments.items() if name not in _IGNORED
    }
    with np.errstate(all="ignore"):
        results = _compute(call.op, given, sizes[0])
    results = results if isinstance(results, (list, tuple)) else [results]
    constants = [
        np.asarray(result).astype(dtype, copy=False)
        for result, dtype in zip(results, dtypes, strict=True)
    ]
    for constant, known in zip(constants, sizes, strict=True):
        if constant.shape != known:
            raise ModelError(f"{call.target} makes {list(constant.shape)}, stated {list(known)}")
    return constants


def _compute(op: str, arguments: Mapping[str, Any], shape: tuple[int, ...]) -> Any:
    if op in _CREATIONS:
        return np.broadcast_to(_CREATIONS[op](**arguments), shape)
    if op in _RESHAPES:
        return np.asarray(arguments["self"]).reshape(shape)
    if op in _EXPANSIONS:
        return np.broadcast_to(arguments["self"], shape)
    if op in _ELEMENTWISE:
        tensors = [value.shape for value in arguments.values() if isinstance(value, np.ndarray)]
        if math.prod(np.broadcast_shapes(*tensors)) != math.prod(shape):
            raise ModelError(f"operands of {op} do not make {list(shape)}")
        if any(type(value) is int for value in arguments.values()):
            arguments = {name: _widened(value) for name, value in arguments.items()}
        return _ELEMENTWISE[op](**arguments)
    return _OTHERS[op](**arguments)


def _widened(value: Any) -> Any:
    """Integers in 64 bits, so that a number that their dtype lacks, as -1 of uint8, is allowed."""
    is_integer = isinstance(value, np.ndarray) and value.dtype.kind in "iu"
    return value.astype(np.int64) if is_integer else value


def _bound(elements: int) -> None:
    if elements > _MAX_ELEMENTS:
        raise UnsupportedError(
            f"a constant of {elements} elements", closest=f"up to {_MAX_ELEMENTS}"
        )


def _divide(x: Any, y: Any, rounding: str | None) -> Any:
    if rounding is None:
        return x / y
    return x // y if rounding == "floor" else np.trunc(x / y)


def _clamp(x: Constant, low: Any, high: Any) -> Any:
    x = x if low is None else np.maximum(x, low)
    return x if high is None else np.minimum(x, high)


def _arange(start: float, end: float, step: float) -> Constant:
    _bound(math.ceil((end - start) / step))
    return np.arange(start, end, step)


def _linspace(start: float, end: float, steps: int) -> Constant:
    _bound(steps)
    return np.linspace(start, end, steps)


def _eye(rows: int, columns: int) -> Constant:
    _bound(rows * columns)
    return np.eye(rows, columns)


def _part(
    x: Constant, dim: int, start: int | None, end: int | None, step: int
) -> tuple[slice, ...]:
    return (*[slice(None)] * (dim % x.ndim), slice(start, end, step))


def _scatter(x: Constant, source: Constant, place: tuple[Any, ...]) -> Constant:
    result: Constant = x.copy()
    result[place] = source
    return result


def _split(x: Constant, size: int, dim: int) -> list[Constant]:
    _bound(x.shape[dim] // size)
    return np.split(x, range(size, x.shape[dim], size), dim)


def _tile(x: Constant, repeats: Sequence[int]) -> Constant:
    _bound(x.size * math.prod(repeats))
    return np.tile(x, tuple(repeats))


def _repeat(x: Constant, repeats: int, dim: int | None) -> Constant:
    _bound(x.size * int(repeats))
    return np.repeat(x, int(repeats), dim)


def _join(join: Callable[..., Constant], tensors: Sequence[Constant], dim: int) -> Constant:
    _bound(sum(x.size for x in tensors))
    result: Constant = join([x for x in tensors if x.shape != (0,)], axis=dim)
    return result


def _checked(x: Constant, dim: int, index: Constant) -> Constant:
    _bound(x.size // x.shape[dim] * index.size)
    return index


def _dims(dim: Dims) -> int | tuple[int, ...] | None:
    if dim is None or isinstance(dim, int):
        return dim
    return tuple(dim) or None


def _others(x: Constant, dim: int) -> list[int] | None:
    """All dimensions but one."""
    return None if dim == -1 else [other for other in range(x.ndim) if other != dim % x.ndim]


def _variance(
    x: Constant,
    dim: Dims,
    correction: float | None = 1,
    unbiased: bool = True,
    keepdim: bool = False,
) -> Any:
    divisor = (1 if correction is None else correction) if unbiased else 0
    return x.var(_dims(dim), ddof=divisor, keepdims=keepdim)


def _norm(x: Constant, p: float, dim: Dims, keepdim: bool) -> Any:
    magnitudes = np.abs(x)
    if p in (math.inf, -math.inf):
        extreme = magnitudes.max if p > 0 else magnitudes.min
        return extreme(_dims(dim), keepdims=keepdim)
    if p == 0:
        return np.asarray(magnitudes != 0).sum(_dims(dim), keepdims=keepdim)
    sums = (magnitudes.astype(np.float64) ** p).sum(_dims(dim), keepdims=keepdim)
    return sums ** (1 / p)


def _softmax(x: Constant, dim: int) -> Any:
    powers = np.exp(x - x.max(dim, keepdims=True))
    return powers / powers.sum(dim, keepdims=True)


def _product(x: Constant, y: Constant) -> Any:
    if x.size * y.size // max(x.shape[-1], 1) > _MAX_PRODUCTS:
        raise UnsupportedError(
            f"a product of constants {list(x.shape)} and {list(y.shape)}",
            closest=f"up to {_MAX_PRODUCTS} multiplications",
        )
    _bound(x.size // x.shape[-1] * (y.size // y.shape[0 if y.ndim == 1 else -2]))
    return np.matmul(x, y)
