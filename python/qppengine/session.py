# SPDX-License-Identifier: Apache-2.0
"""Runs model files: NumPy in, NumPy out. The only module that imports the extension."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from numbers import Integral
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np

from qppengine import _core
from qppengine._core import __version__, cores, cpu_features, is_emulated, kernels, session_options
from qppengine.errors import DTypeError, ShapeError, UnsupportedError, expect_type
from qppengine.ir import InputInfo
from qppengine.limits import DEFAULT_LIMITS, Limits
from qppengine.paths import to_path
from qppengine.profile import Profile

if TYPE_CHECKING:
    import numpy.typing as npt

    from qppengine.ir import Array
    from qppengine.records import Memory, Stats, Step

__all__ = [
    "SCHEMES",
    "Session",
    "StoredValue",
    "__version__",
    "cores",
    "cpu_features",
    "is_emulated",
    "kernels",
    "read_model",
    "session_options",
]

# Those that run a network; "calibration" measures it.
SCHEMES = tuple(
    scheme
    for option in session_options()
    if option["name"] == "scheme"
    for scheme in option["choices"] or ()
    if scheme != "calibration"
)
MAX_RUNS = 1_000_000  # of a profile, whose times are kept

Model: TypeAlias = "str | os.PathLike[str] | bytes | bytearray | memoryview"


@dataclass(frozen=True, eq=False)
class StoredValue:
    """A value of one sample as a step stores it: ``[1, H, W, C]`` in int8 or float16."""

    sample: int  # its index in the batch
    node: str
    value: str
    op: str
    stored: npt.NDArray[np.int8 | np.float16]
    # Of int8: x = scale * (stored - zero_point + residuals).
    scale: float
    zero_point: int
    residuals: npt.NDArray[np.float32] | None  # of dense + sparse values, zero but for outliers

    @property
    def density(self) -> float | None:
        """The share of outliers in a dense + sparse value."""
        return None if self.residuals is None else float(np.mean(self.residuals != 0))

    @property
    def numbers(self) -> Array:
        """The numbers it represents, float32 ``[1, C, H, W]``."""
        x = self.stored.astype(np.float32)
        if self.stored.dtype == np.int8:
            x -= np.float32(self.zero_point)
            if self.residuals is not None:
                x += self.residuals
            x *= np.float32(self.scale)
        return np.ascontiguousarray(np.moveaxis(x, 3, 1))


# Names of statistics up to version 0.1, and their present ones.
_DEPRECATED_STATS = {"clamps": "clamped_predictions", "cut_outliers": "dropped_outliers"}


class _Stats(dict[str, Any]):
    """The statistics of a session, which also answers to their deprecated names."""

    def __missing__(self, name: str) -> Any:
        if name not in _DEPRECATED_STATS:
            raise KeyError(name)
        current = _DEPRECATED_STATS[name]
        warnings.warn(f"{name} is deprecated; use {current}", DeprecationWarning, stacklevel=2)
        return self[current]


class Session:
    """A model file, loaded and packed for one scheme.

    Args:
        model: Path of a ``.qpp`` file, or its bytes.
        scheme: The source of the quantization parameters. "fp16" does not quantize. "static" uses
            the bounds of the file, "dynamic" measures every value of every sample, and "qpp"
            predicts the bounds of a sample from a few statistics of an early value.
        density: Dense + sparse execution, for 0 < density <= 0.1. The bounds are the quantiles of
            alpha = 1 - density, so that up to this share of a value's elements is outside of each
            bound. These outliers are stored in a list, to the nearest step. "static" and "qpp"
            accept the densities of the calibration. Convolutions read such values; grouped
            convolutions and all other operations read an fp16 copy. None stores int8 only.
        residual_dtype: The type in which residual additions, and all other sums, read values that
            convolutions read in int8: "int8", or "fp16" for an fp16 copy from before quantization,
            as the paper's fake quantization does. None is "fp16" in scheme "dynamic", which has the
            fp16 values already, and "int8" in the others. With a density sums always read fp16.
        activation_bits: Bits of the quantized values, 2 to 8; they are always stored in int8.
        threads: Number of threads of a run, including the caller's: 1 to 256.
        cores: "all" lets the system choose; "big" uses the cores of the highest capacity, of which
            there must be as many as threads.
        static_bounds: Bounds of scheme "static": "mean" of the calibration set, its "range", or
            those "fitted" to the errors of rounding and clipping. None is the default of the file.
        algorithm: The algorithm of convolutions. "direct": sums of products, with exact integers
            for int8. "winograd": Winograd's F(4x4, 3x3) in fp16 for 3x3 convolutions of stride 1,
            within 0.5 % rms; direct for the others. "auto" selects the faster one.
        limits: Limits of the sizes that the file can ask for.

    A batch runs sample by sample: the result of a sample does not depend on the others, to the bit,
    and memory does not grow with the batch.

    A session can be used from several threads: an internal lock serializes their calls. For
    parallel work, open one session per thread; `run` releases the GIL. A forked child can use the
    sessions of its parent; it starts its own threads. Signals are handled between the steps of a
    run, so that Ctrl-C ends it within the time of one step; the session remains usable.

    Raises `ModelError` for a damaged file or one that exceeds `limits`, `FileError` for one that
    cannot be read, `UnsupportedError` for options that this engine or this file does not support,
    `Error` if the system cannot start the threads.
    """

    def __init__(
        self,
        model: Model,
        scheme: str = "qpp",
        *,
        density: float | None = None,
        residual_dtype: str | None = None,
        activation_bits: int = 8,
        threads: int = 1,
        cores: str = "all",
        static_bounds: str | None = None,
        algorithm: str = "auto",
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        arguments = locals()
        options = {option["name"]: arguments[option["name"]] for option in session_options()}
        self._core = _core.Session(_source(model), **options, limits=_as_dict(limits))
        self.scheme = scheme

    @property
    def inputs(self) -> tuple[InputInfo, ...]:
        """Name and shape ``[N, C, H, W]`` of every input; None is any size."""
        return tuple(InputInfo(name, tuple(shape)) for name, shape in self._core.inputs)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs, in the order in which `run` returns them."""
        return tuple(self._core.outputs)

    def prepare(self, *shapes: tuple[int, int, int, int]) -> dict[str, tuple[int, ...]]:
        """Plans memory for one shape ``[N, C, H, W]`` per input; else, the first run does so.

        All have the same batch size N. `explain` and `memory` then report on these shapes.
        Returns the shapes of the outputs by name. Raises `ShapeError`.
        """
        outputs = map(tuple, self._core.prepare([_as_shape(shape) for shape in shapes]))
        return dict(zip(self._core.outputs, outputs, strict=True))

    def run(
        self,
        *inputs: Any,
        outputs: str | Sequence[str] | None = None,
        out: Any = None,
    ) -> Any:
        """Runs the network.

        Args:
            inputs: One float32 array ``[N, C, H, W]`` for every input of the network, or one
                mapping of input names to arrays. Arrays are NumPy's or, by the DLPack protocol,
                those of another library in main memory, such as PyTorch tensors, which are not
                copied. Arrays that are not C-contiguous are copied. All have the same batch size
                N. Memory is planned again if C, H or W differ from the previous run.
            outputs: Names of the outputs to return, by default all of them.
            out: Arrays to write the outputs to without a copy: one, a tuple of them in the order
                of `outputs`, or a mapping of names to arrays. float32, C-contiguous, of the
                output's shape; of NumPy or by DLPack. They must not overlap each other. An input
                that overlaps them is copied first.

        Returns:
            The output, float32 ``[N, C, H, W]``, or a tuple if the network has several or
            `outputs` is a sequence. It is `out` if that is given.

        Raises `DTypeError`, `ShapeError`, and `UnsupportedError` for an output that the network
        does not have. Raises `NonFiniteError` if an input of a quantized scheme has NaN, infinity
        or a number beyond fp16, or if finite inputs lead to an output that is not finite. It names
        the value and the sample of a batch; `out` then holds the samples before this one.
        """
        arrays = self._bind(inputs)
        names = self._choose(outputs, out)
        if out is not None:
            targets = out.values() if isinstance(out, Mapping) else _sequence(out)
            into = self._check_out(names, tuple(targets))
            # A sample's output would overwrite the inputs of those after it.
            arrays = [x.copy() if _overlaps(x, into) else x for x in arrays]
            self._core.run_into(arrays, into)
            return out
        given = [name for name in self._core.outputs if name in names]
        results = dict(zip(given, self._core.run(arrays, set(names)), strict=True))
        if isinstance(outputs, str) or (outputs is None and len(names) == 1):
            return results[names[0]]
        return tuple(results[name] for name in names)

    def profile(self, *inputs: Any, runs: int = 10) -> Profile:
        """Runs the network once to warm up and then `runs` times, and times every step of it.

        `inputs` are those of `run`; the time of a step is that of all samples. Sessions that are
        not profiled pay nothing for it.
        """
        if not isinstance(runs, Integral) or not 1 <= runs <= MAX_RUNS:
            raise UnsupportedError(
                f"runs: expected a whole number from 1 to {MAX_RUNS}, got {runs!r}"
            )
        times = self._core.profile(self._bind(inputs), runs)
        return Profile(self._core.explain(), None if is_emulated() else times)

    def observe(self, *inputs: Any) -> list[StoredValue]:
        """Runs the network and returns the output of every step: sample by sample, in order.

        The steps are those of a plain `run`: nothing is fused less because of it.
        """
        steps = self._core.explain()
        return [
            StoredValue(
                observed["sample"],
                steps[observed["step"]]["node"],
                observed["value"],
                steps[observed["step"]]["op"],
                observed["stored"],
                observed["scale"],
                observed["zero_point"],
                observed["residuals"],
            )
            for observed in self._core.observe(self._bind(inputs))
        ]

    def qparams(self) -> npt.NDArray[np.float32]:
        """Bounds lo, hi of `Graph.quantized_values`, of every sample of the last run.

        float32 ``[N, V, 2]``; N is 0 before the first run.
        """
        return self._core.qparams()

    def features(self) -> npt.NDArray[np.float32]:
        """The features of every position, of every sample of the last run.

        float32 ``[N, P, F]``, padded with NaN to the longest list of features; N is 0 before the
        first run.
        """
        return self._core.features()

    def stats(self) -> Stats:
        """Counts since the session opened.

        ``runs``, and the ``samples`` of their batches. ``predictions``: bounds predicted in scheme
        "qpp", one per value and sample. By value:

        ``clamped_predictions``: predictions clamped to the calibrated range, a sign of inputs
        unlike the calibration set.

        ``widened_bounds`` (schemes "dynamic" and "qpp"): bounds that would have clipped everything,
        such as the quantile of a few bright pixels on black. They were moved towards the extremes
        of the value, or in scheme "qpp" to the widest bounds of calibration. With a density, in
        every scheme, also bounds that were extended because outliers exceeded their capacity.

        ``dropped_outliers`` (with a density): outliers that exceeded the capacity even so.
        """
        return cast("Stats", _Stats(self._core.stats()))

    def explain(self) -> list[Step]:
        """The steps of a run in order: node, operation, kernel, dtype, shape ``[N, H, W, C]``.

        ``macs`` are the multiply-accumulates of direct sums of products; ``bytes`` those of inputs,
        output and constants, which every sample reads again. Shapes and both counts are those of
        the whole batch; they are known after `prepare` or a first run. ``note`` says why a step is
        not in int8 although the scheme is: its sums could exceed int32. It is "" for other steps.
        """
        return self._core.explain()

    def memory(self) -> Memory:
        """Sizes in bytes: of the packed ``weights`` and, after `prepare` or a run, of the arena.

        One ``arena`` holds all values and the scratch memory of a sample; it does not grow with the
        batch. ``peak`` is the largest size of live memory at one step, a lower bound of the arena.
        """
        return self._core.memory()

    def _bind(self, inputs: tuple[Any, ...]) -> list[Array]:
        expected = [name for name, _ in self._core.inputs]
        if len(inputs) == 1 and isinstance(inputs[0], Mapping):
            if set(inputs[0]) != set(expected):
                raise ShapeError(f"expected inputs {expected}, got {list(inputs[0])}")
            inputs = tuple(inputs[0][name] for name in expected)
        if len(inputs) != len(expected):
            raise ShapeError(f"expected {len(expected)} inputs {expected}, got {len(inputs)}")
        return [_as_input(name, x) for name, x in zip(expected, inputs, strict=True)]

    def _choose(self, outputs: str | Sequence[str] | None, out: Any) -> tuple[str, ...]:
        """The names of the wanted outputs."""
        known = tuple(self._core.outputs)
        if isinstance(out, Mapping):
            if outputs is not None:
                raise UnsupportedError("outputs: expected None with a mapping as out")
            outputs = tuple(out)
        names = known if outputs is None else tuple(_sequence(outputs))
        if not names or (unknown := [name for name in names if name not in known]):
            wrong = ", ".join(map(repr, unknown)) if names else "none"
            raise UnsupportedError(f"outputs: expected some of {list(known)}, got {wrong}")
        return names

    def _check_out(self, names: tuple[str, ...], targets: tuple[Any, ...]) -> dict[str, Array]:
        if len(targets) != len(names):
            raise ShapeError(
                f"out: expected {len(names)} arrays for {list(names)}, got {len(targets)}"
            )
        arrays: dict[str, Array] = {}
        for name, target in zip(names, targets, strict=True):
            if name in arrays:
                raise UnsupportedError(f"out: output {name!r} occurs twice in outputs")
            array = _from_dlpack(target)
            if not isinstance(array, np.ndarray) or array.dtype != np.float32:
                got = getattr(array, "dtype", type(array).__name__)
                raise DTypeError(f"out: expected a float32 array for {name!r}, got {got}")
            if not (array.flags.c_contiguous and array.flags.writeable):
                raise ShapeError(f"out: the array for {name!r} must be writeable and C-contiguous")
            if _overlaps(array, arrays):
                raise ShapeError(
                    f"out: expected arrays that do not overlap, but that for {name!r} does"
                )
            arrays[name] = array
        return arrays


def read_model(
    model: Model, limits: Limits = DEFAULT_LIMITS
) -> tuple[str, dict[str, npt.NDArray[np.float16 | np.float32]]]:
    """The graph of a model file as JSON, and its tensors."""
    return _core.read_model(_source(model), _as_dict(limits))


def _as_dict(limits: Limits) -> dict[str, int]:
    return asdict(expect_type("limits", limits, Limits, "a Limits object"))


def _source(model: Model) -> str | bytes:
    if isinstance(model, (bytes, bytearray, memoryview)):
        return bytes(model)
    return os.fspath(to_path(model))


def _as_shape(shape: Any) -> tuple[int, int, int, int]:
    sizes = tuple(shape) if isinstance(shape, (tuple, list)) else ()
    if len(sizes) != 4 or not all(isinstance(n, Integral) and abs(int(n)) < 2**63 for n in sizes):
        raise ShapeError(f"prepare: expected shapes of 4 sizes [N, C, H, W], got {shape!r}")
    batch, channels, height, width = map(int, sizes)
    return batch, channels, height, width


def _sequence(x: Any) -> Any:
    return x if isinstance(x, (tuple, list)) else (x,)


def _overlaps(array: Array, others: Mapping[str, Array]) -> bool:
    """Whether any of `others` has memory in common; exact for contiguous arrays."""
    return any(np.may_share_memory(array, other) for other in others.values())


def _from_dlpack(x: Any) -> Any:
    """A view of another library's array; everything else as it is."""
    if isinstance(x, np.ndarray) or not hasattr(x, "__dlpack__"):
        return x
    try:
        return np.from_dlpack(x)
    except (BufferError, RuntimeError, ValueError) as error:
        raise UnsupportedError(
            f"cannot read {type(x).__name__} by DLPack, expected an array in main memory: {error}"
        ) from error


def _as_input(name: str, x: Any) -> Array:
    view = _from_dlpack(x)
    try:
        array = np.asarray(view)
    except (TypeError, ValueError) as error:  # of lists whose lengths differ
        raise ShapeError(f"input {name!r}: expected an array [N, C, H, W]: {error}") from error
    if array.dtype != np.float32:
        raise DTypeError(
            f"input {name!r}: expected float32, got {array.dtype}; convert with astype(np.float32)"
        )
    if array.ndim != 4:
        raise ShapeError(
            f"input {name!r}: expected 4 dimensions [N, C, H, W], got shape {list(array.shape)}"
        )
    return np.ascontiguousarray(array)
