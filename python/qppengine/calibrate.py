# SPDX-License-Identifier: Apache-2.0
"""Measures bounds and features on samples.

Memory does not grow with the samples, only with a few numbers of each, so any iterable will do.
"""

from __future__ import annotations

import threading
import uuid
from collections import deque
from dataclasses import replace
from functools import partial
from itertools import islice
from numbers import Real
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from qppengine.errors import CalibrationError, Error, UnsupportedError, expect_list
from qppengine.model_file import pack, to_bytes
from qppengine.passes import optimize
from qppengine.positions import find_positions
from qppengine.quantization import (
    DEFAULT_FEATURES,
    MAX_DENSITIES,
    TAIL_DENSITIES,
    Calibration,
    Feature,
    Plan,
    Quantization,
)
from qppengine.samples import split_batches, with_open_batch, with_progress
from qppengine.session import Session

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from concurrent.futures import Executor, Future

    from qppengine.graph import Graph
    from qppengine.ir import Array

DENSITIES = (0.01, 0.03, 0.1)  # the paper's

_CHUNK = 4  # samples a worker gets at a time
_CHUNKS_IN_FLIGHT = 32


def calibrate(
    graph: Graph,
    samples: Iterable[Any],
    alpha: float = 0.9997,
    *,
    densities: Sequence[float] = DENSITIES,
    positions: str | Sequence[str] = "first",
    features: Sequence[Feature] | Mapping[str, Sequence[Feature]] = DEFAULT_FEATURES,
    executor: Executor | None = None,
    progress: bool = True,
) -> Calibration:
    """Measures bounds and features of every sample with the engine, in fp16.

    Args:
        graph: The network.
        samples: Inputs of the network, each an array as `Session.run` takes it, or a tuple of them
            when the network has several inputs. A batch is as many samples as images; how they are
            divided into batches does not matter. Consumed lazily, once.
        alpha: The bounds are the alpha-quantiles of a value from both ends, 0.5 < alpha <= 1;
            1 makes them its minimum and maximum.
        densities: Densities of dense + sparse execution in schemes "static" and "qpp", each above 0
            and up to 0.1. The bounds for them are measured in the same pass.
        positions: Names of values whose features predict bounds. Each predicts its own and those of
            the values computed from it, up to the next position. "first" takes the first quantized
            values: the input, or the output of the first activation when the first convolution
            keeps fp16. "auto" adds the input of every layer that is the first of its resolution,
            one more per stage.
        features: The features of every position, or a mapping of positions to theirs; positions
            that are not in it have the default ones.
        executor: Any executor; threads and processes both work. Every worker opens a session.
        progress: Whether to show a progress bar (needs tqdm).

    Raises `CalibrationError` for an empty set, and for a sample that does not fit `ShapeError`,
    `DTypeError` or `NonFiniteError` with its index among all samples.
    """
    _check_types(samples, executor)
    graph = optimize(graph)
    plan = Plan(
        alpha,
        graph.quantized_values,
        find_positions(graph, positions, features),
        tuple(sorted({*expect_list("densities", densities, Real, "above 0 and up to 0.1")})),
    )
    if len(plan.densities) > MAX_DENSITIES:
        raise CalibrationError(
            f"densities: expected up to {MAX_DENSITIES}, got {len(plan.densities)}"
        )
    measured_plan = replace(plan, densities=tuple(sorted({*plan.densities, *TAIL_DENSITIES})))
    model = to_bytes(*pack(with_open_batch(graph), Quantization(measured_plan)))

    chunks = _chunks(split_batches(with_progress(samples, progress, "calibrate")))
    if executor is None:
        results: Iterable[list[_Measurement]] = map(
            partial(_measure, Session(model, scheme="calibration")), chunks
        )
    else:
        work = partial(_measure_in_worker, uuid.uuid4().hex, model)
        results = _map_lazily(executor, work, chunks)
    measured = [measurement for chunk in results for measurement in chunk]
    if not measured:
        raise CalibrationError("the calibration set is empty: expected at least one sample, got 0")
    # Of alpha, then of every density.
    bounds = np.stack([measurement.bounds for measurement in measured])
    of_alpha, *sparse = np.split(bounds, 1 + len(measured_plan.densities), axis=1)
    by_density = dict(zip(measured_plan.densities, sparse, strict=True))
    measured_features = np.stack([measurement.features for measurement in measured])
    return Calibration(
        plan,
        of_alpha,
        measured_features[..., : plan.max_features],  # 0 without positions
        tuple(by_density[density] for density in plan.densities),
        np.stack([by_density[density] for density in TAIL_DENSITIES]),
    )


def _check_types(samples: Any, executor: Any) -> None:
    if not any(hasattr(samples, method) for method in ("__iter__", "__getitem__")):
        raise CalibrationError(f"samples: expected an iterable of arrays, got {samples!r}")
    if executor is not None and not hasattr(executor, "submit"):
        raise UnsupportedError(
            f"executor: expected a concurrent.futures.Executor or None, got {executor!r}"
        )


class _Measurement(NamedTuple):
    bounds: Array  # [V, 2] of every alpha, concatenated
    features: Array


class _Chunk(NamedTuple):
    first: int  # index of its first sample
    samples: list[Any]


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
        _worker.session, _worker.token = Session(model, scheme="calibration"), token
    return _measure(_worker.session, chunk)


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
