# SPDX-License-Identifier: Apache-2.0
"""Streams samples through the network and keeps what quantization needs: bounds and features.

Memory does not grow with the samples, only with a few numbers of each, so any iterable will do.
"""

from __future__ import annotations

import contextlib
import io
import math
import threading
import uuid
from collections import deque
from collections.abc import Mapping, Sized
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from qppengine.errors import CalibrationError, Error, FileError, ShapeError
from qppengine.graph import Value
from qppengine.passes import optimize
from qppengine.paths import to_path, write_file
from qppengine.serialize import serialize_for_measurement
from qppengine.session import Session

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from concurrent.futures import Executor, Future

    import numpy.typing as npt

    from qppengine.graph import Array, Graph

# Of those that one pass over a tail finds, the best at predicting photographs of the training and
# calibration splits which the regressor has not seen: bench/accuracy/feature_alphas.py.
FEATURE_ALPHAS = (0.997, 0.999, 0.9998)
FEATURES = 5  # three quantiles, mean, max
DENSITIES = (0.01, 0.03, 0.1)  # the paper's
LARGEST_DENSITY = 0.1

_CHUNK = 4  # samples a worker gets at a time
_CHUNKS_IN_FLIGHT = 32


class Position(NamedTuple):
    """A value whose features predict the bounds of others: rows of ``Plan.values``."""

    value: str
    rows: tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """What calibration measures."""

    alpha: float  # of the quantiles that are the bounds
    values: tuple[str, ...]  # the quantized values, V
    positions: tuple[Position, ...]  # P
    feature_alphas: tuple[float, float, float]
    densities: tuple[float, ...] = ()  # of dense + sparse execution, D


@dataclass(frozen=True, eq=False)
class Calibration:
    """What calibration measured on N samples.

    ``bounds`` ``[N, V, 2]``: lo, hi of every quantized value, the alpha-quantiles from both ends;
    where a quantile would cut everything on its side of zero, the extreme instead, up to the
    magnitude of the other bound, unless that is zero as well.
    ``features`` ``[N, P, 5]``: three quantiles, mean and max at every position.
    ``sparse_bounds``: for every density bounds as above, of alpha = 1 - density. All are float32.
    """

    plan: Plan
    bounds: Array
    features: Array
    sparse_bounds: tuple[Array, ...] = ()

    @property
    def by_density(self) -> tuple[Calibration, ...]:
        """For every density what a calibration with alpha = 1 - density measures."""
        return tuple(
            Calibration(replace(self.plan, alpha=1 - density, densities=()), bounds, self.features)
            for density, bounds in zip(self.plan.densities, self.sparse_bounds, strict=True)
        )

    @property
    def mean_bounds(self) -> Array:
        """Mean of the bounds over the samples, ``[V, 2]``."""
        return np.asarray(self.bounds.mean(axis=0, dtype=np.float64), np.float32)

    @property
    def range_bounds(self) -> Array:
        """The bounds that hold those of all samples, ``[V, 2]``."""
        lo, hi = self.bounds[..., 0].min(axis=0), self.bounds[..., 1].max(axis=0)
        return np.stack([lo, hi], axis=-1)

    @property
    def seen(self) -> Array:
        """Smallest and largest lo, smallest and largest hi of every value, ``[V, 4]``."""
        low, high = self.bounds.min(axis=0), self.bounds.max(axis=0)
        return np.stack([low[:, 0], high[:, 0], low[:, 1], high[:, 1]], axis=-1)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the statistics as an ``.npz`` file. Raises `FileError`."""
        fields: dict[str, Any] = {
            "alpha": self.plan.alpha,
            "values": self.plan.values,
            "positions": [position.value for position in self.plan.positions],
            "row_positions": [
                next(p for p, position in enumerate(self.plan.positions) if row in position.rows)
                for row in range(len(self.plan.values))
            ],
            "feature_alphas": self.plan.feature_alphas,
            "bounds": self.bounds,
            "features": self.features,
            "densities": self.plan.densities,
            "sparse_bounds": np.asarray(self.sparse_bounds, np.float32).reshape(
                len(self.sparse_bounds), *self.bounds.shape
            ),
        }
        data = io.BytesIO()
        np.savez(data, **fields)
        write_file(path, data.getvalue())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Calibration:
        """Reads what `save` wrote.

        Raises `FileError` for a file that cannot be read, and `CalibrationError` for one that holds
        something else: other dtypes or shapes, no samples, or numbers that are not finite.
        """
        source = to_path(path)
        try:
            with source.open("rb") as file:
                data = np.load(file, allow_pickle=False)
                if not isinstance(data, np.lib.npyio.NpzFile):
                    raise TypeError("it is no .npz file")
                served = data["row_positions"].tolist()
                positions = tuple(
                    Position(value, tuple(row for row, p in enumerate(served) if p == index))
                    for index, value in enumerate(data["positions"].tolist())
                )
                first, second, third = data["feature_alphas"].tolist()
                plan = Plan(
                    float(data["alpha"]),
                    tuple(data["values"].tolist()),
                    positions,
                    (first, second, third),
                    tuple(data["densities"].tolist()),
                )
                bounds, features = data["bounds"], data["features"]
                sparse_bounds = data["sparse_bounds"]
        except OSError as error:
            raise FileError(f"cannot read {str(source)!r}: {error.strerror}") from error
        except Exception as error:  # np.load names no exceptions for a damaged file
            raise CalibrationError(f"{str(source)!r} holds no calibration: {error}") from error
        try:
            _check_alphas(plan.alpha, plan.feature_alphas, plan.densities)
            _check_statistics(plan, bounds, features, sparse_bounds)
        except CalibrationError as error:
            raise CalibrationError(f"{str(source)!r} holds no calibration: {error}") from error
        return cls(plan, bounds, features, tuple(sparse_bounds))


def _check_alphas(
    alpha: float, feature_alphas: Sequence[float], densities: Sequence[float]
) -> None:
    for name, value in (("alpha", alpha), *(("feature_alphas", a) for a in feature_alphas)):
        if not 0.5 < value <= 1:
            raise CalibrationError(f"{name}: expected above 0.5 and up to 1, got {value}")
    for density in densities:
        if not 0 < density <= LARGEST_DENSITY:
            raise CalibrationError(
                f"densities: expected above 0 and up to {LARGEST_DENSITY}, got {density}"
            )


def _check_statistics(
    plan: Plan,
    bounds: npt.NDArray[Any],
    features: npt.NDArray[Any],
    sparse_bounds: npt.NDArray[Any],
) -> None:
    """Checks the arrays that a file holds for a plan."""
    samples = bounds.shape[:1]
    expected = (*samples, len(plan.values), 2)
    if (
        bounds.shape != expected
        or features.shape != (*samples, len(plan.positions), FEATURES)
        or sparse_bounds.shape != (len(plan.densities), *expected)
    ):
        raise CalibrationError(
            f"bounds {bounds.shape}, features {features.shape} and bounds of densities "
            f"{sparse_bounds.shape} do not match {len(plan.values)} values and "
            f"{len(plan.positions)} positions"
        )
    if samples == (0,):
        raise CalibrationError("expected at least one sample, got 0")
    assigned = sorted(row for position in plan.positions for row in position.rows)
    if assigned != list(range(len(plan.values))):
        raise CalibrationError("row_positions: expected one position for every value")
    arrays = {"bounds": bounds, "features": features, "sparse_bounds": sparse_bounds}
    for name, array in arrays.items():
        if array.dtype != np.float32:
            raise CalibrationError(f"{name}: expected float32, got {array.dtype}")
        if not np.isfinite(array).all():
            raise CalibrationError(f"{name}: expected finite numbers, got NaN or infinity")
        if name != "features" and (array[..., 0] > array[..., 1]).any():
            raise CalibrationError(f"{name}: expected lo, hi in this order, got lo above hi")


def calibrate(
    graph: Graph,
    samples: Iterable[Any],
    alpha: float = 0.9997,
    *,
    densities: Sequence[float] = DENSITIES,
    positions: str | Sequence[str] = "first",
    feature_alphas: tuple[float, float, float] = FEATURE_ALPHAS,
    executor: Executor | None = None,
    progress: bool = True,
) -> Calibration:
    """Measures bounds and features of every sample, on the engine itself in fp16.

    Args:
        graph: The network.
        samples: Inputs of the network, each an array as `Session.run` takes it, or a tuple of them
            when the network has several inputs. A batch is as many samples as images; how they are
            divided into batches does not matter. Consumed lazily, once.
        alpha: The bounds are the alpha-quantiles of a value from both ends, 0.5 < alpha <= 1;
            1 makes them its minimum and maximum.
        densities: Of dense + sparse execution in schemes "static" and "qpp", each above 0 and up to
            0.1: what they need is measured besides, in the same pass.
        positions: Names of values whose features predict bounds; each serves itself and what is
            computed from it, up to the next one. "first" takes the first quantized values: the
            input, or what the first activation gives when the first convolution keeps fp16.
            "auto" takes besides what stands in front of every layer that is the first of its
            resolution: one more per stage.
        feature_alphas: The three quantiles among the features.
        executor: Any executor; threads and processes both work. Every worker opens a session.
        progress: Whether to show a progress bar (needs tqdm).

    Raises `CalibrationError` for an empty set, and for a sample that does not fit `ShapeError`,
    `DTypeError` or `NonFiniteError` with its index among all samples.
    """
    _check_alphas(alpha, feature_alphas, densities)
    graph = optimize(graph)
    plan = Plan(
        alpha,
        graph.quantized_values,
        _serve(graph, _find_positions(graph, positions)),
        feature_alphas,
        tuple(sorted(set(densities))),
    )
    model = serialize_for_measurement(_with_open_batch(graph), plan)

    chunks = _chunks(_split_batches(_with_progress(samples, progress)))
    if executor is None:
        results: Iterable[list[_Measurement]] = map(
            partial(_measure, Session(model, scheme="measure")), chunks
        )
    else:
        work = partial(_measure_in_worker, uuid.uuid4().hex, model)
        results = _map_lazily(executor, work, chunks)
    measured = [measurement for chunk in results for measurement in chunk]
    if not measured:
        raise CalibrationError("the calibration set is empty: expected at least one sample, got 0")
    # Of alpha, then of every density.
    bounds = np.stack([measurement.bounds for measurement in measured])
    by_alpha = np.split(bounds, 1 + len(plan.densities), axis=1)
    features = np.stack([measurement.features for measurement in measured])
    return Calibration(plan, by_alpha[0], features, tuple(by_alpha[1:]))


class _Measurement(NamedTuple):
    bounds: Array  # [V, 2] of every alpha, one after the other
    features: Array


class _Chunk(NamedTuple):
    first: int  # index of its first sample
    samples: list[Any]


def _find_positions(graph: Graph, positions: str | Sequence[str]) -> tuple[str, ...]:
    if not isinstance(positions, str):
        return tuple(positions)
    if positions not in ("first", "auto"):
        raise CalibrationError(
            f'positions: expected "first", "auto" or a list of values, got {positions!r}'
        )
    computed: set[str] = set()  # from quantized values
    for node in graph.nodes:
        if any(value in graph.row_owners or value in computed for value in node.inputs):
            computed.add(node.output)
    first = tuple(value for value in graph.quantized_values if value not in computed)
    return first if positions == "first" else (*first, *_stage_inputs(graph))


def _stage_inputs(graph: Graph) -> Iterator[str]:
    """What the first layer of every lower resolution reads, but for the layers of one pixel."""
    shapes = _shapes_of_large_image(graph)
    areas = {value: math.prod(shape[2:]) for value, shape in shapes.items()}
    finest = max(areas[value.name] for value in graph.inputs)
    reached = 0
    for node in graph.nodes:
        if node.op in ("conv2d", "max_pool2d", "avg_pool2d") and areas[node.output] > 1:
            halvings = round(math.log2(finest / areas[node.output]) / 2)
            if halvings > reached:
                reached = halvings
                yield node.inputs[0]


def _shapes_of_large_image(graph: Graph) -> dict[str, tuple[int, ...]]:
    for size in (1024, 256, 64):
        with contextlib.suppress(ShapeError):
            return graph.closed_shapes(size)
    return graph.closed_shapes(16)


def _serve(graph: Graph, positions: tuple[str, ...]) -> tuple[Position, ...]:
    """Gives every quantized value to the position it is computed from, the last one upstream."""
    if unknown := [name for name in positions if name not in graph.shapes]:
        raise CalibrationError(f"positions: the network has no value {', '.join(unknown)}")
    server: dict[str, str] = {}
    producers = {node.output: node for node in graph.nodes}
    order = {value: index for index, value in enumerate(graph.shapes)}
    for value in graph.shapes:
        sources = producers[value].inputs if value in producers else ()
        upstream = [server[source] for source in sources if source in server]
        if value in positions:
            server[value] = value
        elif upstream:
            server[value] = max(upstream, key=order.__getitem__)
    rows: dict[str, list[int]] = {name: [] for name in positions}
    for row, value in enumerate(graph.quantized_values):
        if value not in server:
            raise CalibrationError(f"positions: none of {list(positions)} comes before {value!r}")
        rows[server[value]].append(row)
    return tuple(Position(name, tuple(served)) for name, served in rows.items() if served)


def _measure(session: Session, chunk: _Chunk) -> list[_Measurement]:
    measurements: list[_Measurement] = []
    for index, sample in enumerate(chunk.samples, chunk.first):
        try:
            session.run(*(sample if isinstance(sample, tuple) else (sample,)))
        except Error as error:
            raise type(error)(f"sample {index}: {error}") from error
        measurements += map(_Measurement, session.qparams(), session.features())
    return measurements


_worker = threading.local()


def _measure_in_worker(token: str, model: bytes, chunk: _Chunk) -> list[_Measurement]:
    """`_measure` with a session of the worker's own, opened once for every calibration."""
    if getattr(_worker, "token", None) != token:
        _worker.session, _worker.token = Session(model, scheme="measure"), token
    return _measure(_worker.session, chunk)


def _with_open_batch(graph: Graph) -> Graph:
    """The graph for batches of any size: samples are measured one by one."""
    inputs = tuple(Value(value.name, (None, *value.shape[1:])) for value in graph.inputs)
    return replace(graph, inputs=inputs)


def _split_batches(samples: Iterable[Any]) -> Iterator[Any]:
    """The images of every batch one by one; `Session.run` refuses what is not a batch."""
    for sample in samples:
        names = tuple(sample) if isinstance(sample, Mapping) else None
        if names is not None:
            arrays = tuple(sample[name] for name in names)
        else:
            arrays = sample if isinstance(sample, tuple) else (sample,)
        shapes: list[Any] = [getattr(array, "shape", ()) for array in arrays]
        sizes = {shape[0] if len(shape) == 4 else 0 for shape in shapes}
        if len(sizes) != 1 or sizes <= {0, 1}:
            yield sample
            continue
        for i in range(sizes.pop()):
            images = tuple(array[i : i + 1] for array in arrays)
            yield images if names is None else dict(zip(names, images, strict=True))


def _chunks(samples: Iterable[Any]) -> Iterator[_Chunk]:
    iterator = iter(samples)
    first = 0
    while chunk := list(islice(iterator, _CHUNK)):
        yield _Chunk(first, chunk)
        first += len(chunk)


def _map_lazily(
    executor: Executor,
    work: Callable[[_Chunk], list[_Measurement]],
    chunks: Iterable[_Chunk],
) -> Iterator[list[_Measurement]]:
    """Results in order. Unlike `Executor.map`, draws only a few chunks ahead."""
    pending: deque[Future[list[_Measurement]]] = deque()
    try:
        for chunk in chunks:
            pending.append(executor.submit(work, chunk))
            if len(pending) == _CHUNKS_IN_FLIGHT:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()


def _with_progress(samples: Iterable[Any], progress: bool) -> Iterable[Any]:
    if not progress:
        return samples
    try:
        from tqdm import tqdm
    except ImportError:  # the bar is a convenience
        return samples
    total = len(samples) if isinstance(samples, Sized) else None
    bar: Iterable[Any] = tqdm(samples, "calibrate", total, unit=" samples", leave=False)
    return bar
