# SPDX-License-Identifier: Apache-2.0
"""Writes and reads ``.qpp`` files: safetensors with the graph as JSON in the metadata.

A file holds the graph, its weights (fp16) and, when calibrated, the static bounds and predictors of
the quantized values. How it runs is decided when it is opened, so one file serves every scheme.
"""

from __future__ import annotations

import contextlib
import json
import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from qppengine.errors import (
    CalibrationError,
    Error,
    ModelError,
    NonFiniteError,
    ShapeError,
    UnsupportedError,
)
from qppengine.graph import Graph, Node, Value
from qppengine.limits import DEFAULT_LIMITS, Limits
from qppengine.passes import optimize
from qppengine.paths import to_path, write_file
from qppengine.predictor import fit
from qppengine.session import SCHEMES, Session, read_model

if TYPE_CHECKING:
    import os
    from pathlib import Path

    import numpy.typing as npt

    from qppengine.calibrate import Calibration, Plan
    from qppengine.graph import Array
    from qppengine.predictor import Predictor
    from qppengine.session import Model

FORMAT = "qppengine"
FORMAT_VERSION = "1"

# Sizes tried for the open dimensions of a verification run.
_PROBE_SIZES = (16, 64, 256, 1024)


def save(
    path: str | os.PathLike[str],
    graph: Graph,
    calibration: Calibration | None = None,
    *,
    headroom: float = 0,
) -> None:
    """Writes a model file, which appears complete and verified or not at all.

    Without a calibration the file runs in scheme "fp16" only. Before anything is written, the
    model is loaded and run in every scheme it has, and the bounds that it predicts are compared
    with those of the fitted predictors. What is written is read back and compared to the bit.

    Args:
        path: Where to.
        graph: The network.
        calibration: What `calibrate` measured.
        headroom: By how many standard deviations of their error on the calibration set predicted
            bounds lie further out, 0 to 10. Bounds that are too narrow cut values, which at 8 bits
            costs more than wider steps do: 1 to 2 serves networks whose bounds a linear regressor
            predicts badly. 0 is plain least squares, as in the paper.

    Raises `CalibrationError` for a calibration of another network or with too few samples to fit,
    `UnsupportedError` for weights beyond fp16, `FileError` where the path cannot be written,
    `ModelError` when what was written is not what the engine reads or predicts.
    """
    path = to_path(path)
    contents = _contents(graph, calibration, headroom)
    data = contents.to_bytes()
    _verify(data, optimize(graph), ("fp16",) if calibration is None else SCHEMES)
    if calibration is not None and contents.predictors:  # none where nothing is quantized
        _verify_predictions(data, optimize(graph), calibration, contents.predictors)
    write_file(path, data, lambda written: _verify_tensors(written, contents.tensors))


def serialize(
    graph: Graph, calibration: Calibration | None = None, *, headroom: float = 0
) -> bytes:
    """The bytes of a model file: the optimized graph, with predictors fitted to the calibration.

    Equal graphs and calibrations give equal bytes. Raises as `save` does.
    """
    return _contents(graph, calibration, headroom).to_bytes()


class _Contents(NamedTuple):
    """What a model file holds."""

    graph_json: str
    tensors: dict[str, npt.NDArray[Any]]
    predictors: tuple[Predictor, ...] = ()  # for samples without a density

    def to_bytes(self) -> bytes:
        from safetensors.numpy import save as to_safetensors

        metadata = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "graph": self.graph_json,
        }
        # safetensors writes the memory of an array as it is, whatever the order of its axes.
        contiguous = {name: np.ascontiguousarray(array) for name, array in self.tensors.items()}
        return _sort_header(to_safetensors(contiguous, metadata))


def _contents(graph: Graph, calibration: Calibration | None, headroom: float) -> _Contents:
    if calibration is None:
        return _pack(optimize(graph), None, {})
    plan = calibration.plan
    expected = optimize(graph).quantized_values
    if plan.values != expected:
        raise CalibrationError(
            f"the calibration belongs to another network: expected the values {list(expected)}, "
            f"got {list(plan.values)}"
        )
    quantization = _quantization(plan)
    # A slash keeps these apart from the weights, whose names begin with module paths.
    sets = (calibration, *calibration.by_density)
    tensors = {
        "qparams/mean": np.concatenate([one.mean_bounds for one in sets]),
        "qparams/range": np.concatenate([one.range_bounds for one in sets]),
        "qparams/seen": np.concatenate([one.seen for one in sets]),
    }
    quantization |= {
        "static": {"mean": "qparams/mean", "range": "qparams/range"},
        "default_static": "mean",
        "seen": "qparams/seen",
    }
    predictors = [fit(one, headroom) for one in sets]
    for index, fitted in enumerate(zip(*predictors, strict=True)):
        names = {key: f"predictors/{index}/{key}" for key in ("weight", "bias")}
        quantization["predictors"][index] |= names
        tensors[names["weight"]] = np.concatenate([predictor.weight for predictor in fitted])
        tensors[names["bias"]] = np.concatenate([predictor.bias for predictor in fitted])
    return _pack(optimize(graph), quantization, tensors)._replace(predictors=predictors[0])


def _sort_header(data: bytes) -> bytes:
    """The same file with a header that depends on its contents alone.

    safetensors orders the metadata by a hash that differs from process to process.
    """
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors stay aligned
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def serialize_for_measurement(graph: Graph, plan: Plan) -> bytes:
    """The bytes of a model that tells a calibration's bounds and features, in scheme "measure"."""
    return _pack(graph, _quantization(plan), {}).to_bytes()


def load_graph(model: Model, limits: Limits = DEFAULT_LIMITS) -> Graph:
    """The graph of a model file or its bytes. Raises `ModelError`, `FileError`."""
    text, tensors = read_model(model, limits)
    try:
        document = json.loads(text)
        return Graph(
            document["name"],
            tuple(Value(v["name"], tuple(v["shape"])) for v in document["inputs"]),
            tuple(document["outputs"]),
            tuple(
                Node(
                    node["op"],
                    node["name"],
                    tuple(node["inputs"]),
                    node["output"],
                    node["attributes"],
                    _loaded({key: tensors[name] for key, name in node["tensors"].items()}),
                    node.get("fp16", False),
                )
                for node in document["nodes"]
            ),
        )
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        if isinstance(error, Error):
            raise
        raise ModelError(f"the graph of the file is malformed: {error!r}") from error


def _quantization(plan: Plan) -> dict[str, Any]:
    return {
        "alpha": plan.alpha,
        "densities": list(plan.densities),
        "values": list(plan.values),
        "predictors": [
            {
                "position": position.value,
                "alphas": list(plan.feature_alphas),
                "rows": list(position.rows),
            }
            for position in plan.positions
        ],
    }


def _pack(
    graph: Graph, quantization: dict[str, Any] | None, tensors: dict[str, Array]
) -> _Contents:
    arrays: dict[str, npt.NDArray[Any]] = dict(tensors)
    nodes = []
    for node in graph.nodes:
        stored = _stored(node)
        names = {key: f"{node.name}.{key}" for key in stored}
        arrays |= {names[key]: tensor for key, tensor in stored.items()}
        nodes.append(
            {
                "op": node.op,
                "name": node.name,
                "inputs": node.inputs,
                "output": node.output,
                "attributes": node.attributes,
                "tensors": names,
                **({"fp16": True} if node.fp16 else {}),
            }
        )
    document: dict[str, Any] = {
        "name": graph.name,
        "inputs": [{"name": value.name, "shape": value.shape} for value in graph.inputs],
        "outputs": graph.outputs,
        "nodes": nodes,
    }
    if quantization is not None:
        document["quantization"] = quantization
    return _Contents(json.dumps(document, allow_nan=False, sort_keys=True), arrays)


def _stored(node: Node) -> dict[str, npt.NDArray[Any]]:
    """The tensors of a node as the file holds them: weights in fp16, all others in fp32.

    Filters of tiny or huge weights have them in units of a ``scale``, a power of two.
    """
    stored: dict[str, npt.NDArray[Any]] = dict(node.tensors)
    weight = stored.get("weight")
    if weight is None:
        return stored
    if node.op == "conv2d":
        scale = _half_scale(np.abs(weight).reshape(len(weight), -1).max(axis=1))
        if (scale != 1).any():
            stored["scale"] = scale
            weight = weight / scale.reshape(-1, 1, 1, 1)
    with np.errstate(over="ignore"):
        stored["weight"] = weight.astype(np.float16)
    if not np.isfinite(stored["weight"]).all():
        raise UnsupportedError(
            f"{node.name}: weights are stored in fp16, up to 65504; got {np.abs(weight).max():g}"
        )
    return stored


def _half_scale(largest: Array) -> Array:
    """The units in which fp16 holds weights up to these magnitudes to full precision."""
    exponent = np.frexp(largest)[1] - 1  # the largest weight is at least 2^exponent
    shift = np.where(exponent < -9, exponent + 7, np.where(exponent > 14, exponent - 14, 0))
    scale = np.where(largest > 0, np.ldexp(1.0, shift), 1.0)
    return np.asarray(scale, np.float32)


def _loaded(tensors: dict[str, npt.NDArray[Any]]) -> dict[str, Array]:
    """The tensors of a node from those that the file holds."""
    loaded: dict[str, Array] = {key: array.astype(np.float32) for key, array in tensors.items()}
    scale = loaded.pop("scale", None)
    if scale is not None:
        loaded["weight"] = loaded["weight"] * scale.reshape(-1, 1, 1, 1)
    return loaded


def _verify(data: bytes, graph: Graph, schemes: tuple[str, ...]) -> None:
    """Loads the model and runs it once in every scheme on a small ramp."""
    shapes = _probe(graph)
    inputs = {value.name: _ramp(shapes[value.name]) for value in graph.inputs}
    for scheme in schemes:
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


def _verify_predictions(
    data: bytes, graph: Graph, calibration: Calibration, predictors: tuple[Predictor, ...]
) -> None:
    """Compares the rows that a session predicts with what the predictors make of its features.

    The inputs are ramps over what samples of the calibration set span, where that is known: of
    other inputs many predictions would be cut, and agree for that reason alone.
    """
    shapes = _probe(graph)
    session = Session(data, scheme="qpp")
    by_brightness = np.argsort(calibration.features[:, 0, -1])
    for sample in by_brightness[len(by_brightness) * np.arange(1, 4) // 4]:
        bounds = dict(zip(calibration.plan.values, calibration.bounds[sample], strict=True))
        session.run(
            {
                value.name: _ramp(shapes[value.name], *bounds.get(value.name, (0, 1)))
                for value in graph.inputs
            }
        )
        rows, measured = session.qparams()[0], session.features()[0]
        for predictor, features in zip(predictors, measured, strict=True):
            predicted = predictor.predict(features[None], calibration.seen)[0]
            # The engine widens every row until it holds zero.
            expected = np.stack([predicted[:, 0].clip(max=0), predicted[:, 1].clip(0)], axis=-1)
            got = rows[list(predictor.position.rows)]
            terms = np.abs(predictor.weight) @ np.abs(features) + np.abs(predictor.bias)
            wrong = (np.abs(got - expected) > 1e-5 * terms.reshape(-1, 2)).any(axis=1)
            if wrong.any():
                row = int(np.argmax(wrong))
                value = calibration.plan.values[predictor.position.rows[row]]
                raise ModelError(
                    f"verification: expected the engine to predict the bounds "
                    f"{expected[row].tolist()} for {value!r}, got {got[row].tolist()}; the file "
                    f"was not written"
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
            return graph.closed_shapes(size)
    raise UnsupportedError(f"the network takes no image of {_PROBE_SIZES[-1]} pixels a side")
