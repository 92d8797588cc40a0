# SPDX-License-Identifier: Apache-2.0
"""Writes model files: verified in every scheme first, renamed into place last."""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from qppengine.errors import ModelError, NonFiniteError, ShapeError, UnsupportedError
from qppengine.model_file import pack, to_bytes
from qppengine.passes import optimize
from qppengine.paths import to_path, write_file
from qppengine.quantization import (
    MIN_MAGNITUDE,
    BoundSet,
    Calibration,
    Predictor,
    Quantization,
)
from qppengine.regression import fit
from qppengine.session import SCHEMES, Session, read_model

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator
    from pathlib import Path

    import numpy.typing as npt

    from qppengine.graph import Graph
    from qppengine.ir import Array

# Sizes to try for dynamic dimensions in a verification run.
_PROBE_SIZES = (16, 64, 256, 1024)


def save(
    path: str | os.PathLike[str],
    graph: Graph,
    quantization: Quantization | Calibration | None = None,
) -> None:
    """Writes a model file, which appears complete and verified or not at all.

    Before anything is written, the model is loaded and run in every scheme it has, and the bounds
    that it predicts are compared with those of the fitted predictors. The written file is read back
    and compared bit by bit.

    Args:
        path: The file to write.
        graph: The network.
        quantization: What `fit` returned. A calibration is fitted first. A file
            without either runs in scheme "fp16" only.

    Raises `CalibrationError` for a calibration of another network or with too few samples to fit,
    `UnsupportedError` for weights beyond fp16, `FileError` where the path cannot be written,
    `ModelError` when the engine reads or predicts something else than was written.
    """
    path = to_path(path)
    if isinstance(quantization, Calibration):
        quantization = fit(quantization)
    graph = optimize(graph)
    graph_json, tensors = pack(graph, quantization)
    data = to_bytes(graph_json, tensors)
    _verify(data, graph, quantization)
    write_file(path, data, lambda written: _verify_tensors(written, tensors))


def _verify(data: bytes, graph: Graph, quantization: Quantization | None) -> None:
    """Loads the model and runs it in every scheme on a small ramp; compares predicted bounds."""
    shapes = _probe(graph)
    inputs = {value.name: _ramp(shapes[value.name]) for value in graph.inputs}
    for scheme in ("fp16",) if quantization is None else SCHEMES:
        session = Session(data, scheme=scheme)
        try:
            outputs = session.run(inputs)
        except NonFiniteError as error:
            raise NonFiniteError(f"verification in scheme {scheme!r}: {error}") from error
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        for name, output in zip(session.outputs, outputs, strict=True):
            if output.shape != shapes[name]:
                raise ModelError(
                    f"verification in scheme {scheme!r}: expected output {name!r} of shape "
                    f"{shapes[name]}, got {output.shape}"
                )
        # Without predictors nothing is quantized.
        if scheme == "qpp" and quantization is not None and quantization.predictors:
            _verify_predictions(session, shapes, quantization)


def _verify_predictions(
    session: Session, shapes: dict[str, tuple[int, ...]], quantization: Quantization
) -> None:
    """Compares the rows that a session predicts with those of the predictors for its features."""
    (bounds, *_), values = quantization.sets, quantization.plan.values
    for spans in _typical_spans(bounds):
        span_of = dict(zip(values, spans, strict=True))
        session.run(
            {
                value.name: _ramp(shapes[value.name], *span_of.get(value.name, (0, 1)))
                for value in session.inputs
            }
        )
        rows, features = session.qparams()[0], session.features()[0]
        for predictor, row_features in zip(bounds.predictors, features, strict=True):
            _compare_predictions(
                predictor,
                row_features[: predictor.weight.shape[1]],
                bounds.calibrated_range,
                rows,
                values,
            )


def _typical_spans(bounds: BoundSet) -> Iterator[Array]:
    """Bounds ``[V, 2]`` in the middle of the calibrated range of samples.

    Of inputs outside of it many predictions would be clamped, and agree for that reason alone.
    """
    yield bounds.mean
    for ends in ([1, 2], [0, 3]):
        yield np.asarray((bounds.mean + bounds.calibrated_range[:, ends]) / 2)


def _compare_predictions(
    predictor: Predictor,
    features: Array,
    calibrated_range: Array,
    rows: npt.NDArray[np.float32],
    values: tuple[str, ...],
) -> None:
    """Raises `ModelError` where rows of the QP table differ from the predictor's bounds."""
    predicted = predictor.predict(features[None], calibrated_range)[0]
    # The engine extends every row until it contains zero.
    expected = np.stack([predicted[:, 0].clip(max=0), predicted[:, 1].clip(0)], axis=-1)
    got = rows[list(predictor.position.rows)]
    terms = np.abs(predictor.weight) @ np.abs(features) + np.abs(predictor.bias)
    tolerance = 1e-5 * terms.reshape(-1, 2)
    if predictor.target_transform == "log":  # where a small error scales the bound
        tolerance = tolerance * np.abs(expected) + 2 * MIN_MAGNITUDE
    wrong = (np.abs(got - expected) > tolerance).any(axis=1)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ModelError(
            f"verification: expected the engine to predict the bounds {expected[row].tolist()} for "
            f"{values[predictor.position.rows[row]]!r}, got {got[row].tolist()}; the file was not "
            f"written"
        )


def _verify_tensors(path: Path, tensors: dict[str, npt.NDArray[Any]]) -> None:
    """Reads a written file as the engine does, and compares its tensors to the bit."""
    _, stored = read_model(path)
    different = [
        name
        for name in stored.keys() | tensors.keys()
        if name not in stored
        or name not in tensors
        or stored[name].dtype != tensors[name].dtype
        or stored[name].shape != tensors[name].shape
        or stored[name].tobytes() != tensors[name].tobytes()
    ]
    if different:
        raise ModelError(
            f"verification: expected to read back the tensors that were written, got others of "
            f"{', '.join(sorted(different))}; the file was not written"
        )


def _ramp(shape: tuple[int, ...], lo: float = 0, hi: float = 1) -> Array:
    return np.linspace(lo, hi, math.prod(shape), dtype=np.float32).reshape(shape)


def _probe(graph: Graph) -> dict[str, tuple[int, ...]]:
    """Shapes of all values, for the smallest image tried that passes through the network."""
    for size in _PROBE_SIZES:
        with contextlib.suppress(ShapeError):
            return graph.resolve_shapes(size)
    raise UnsupportedError(f"the network takes no image of {_PROBE_SIZES[-1]} pixels a side")
