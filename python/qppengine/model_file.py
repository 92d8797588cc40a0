# SPDX-License-Identifier: Apache-2.0
"""The bytes of ``.qpp`` files: safetensors with the graph as JSON in the metadata.

A file holds the graph, its weights (fp16) and, when calibrated, the static bounds and predictors of
the quantized values. The scheme is chosen when the file is opened, so one file has all schemes.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from qppengine.errors import CalibrationError, Error, ModelError, UnsupportedError, expect_type
from qppengine.graph import Graph
from qppengine.ir import InputInfo, Node
from qppengine.limits import DEFAULT_LIMITS, Limits
from qppengine.passes import optimize
from qppengine.quantization import Quantization
from qppengine.session import read_model

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from qppengine.ir import Array
    from qppengine.session import Model

FORMAT = "qppengine"
FORMAT_VERSION = "2"


def serialize(graph: Graph, quantization: Quantization | None = None) -> bytes:
    """The bytes of a model file: the optimized graph and its quantization.

    Equal arguments give equal bytes. Raises `CalibrationError` for the quantization of another
    network, and `UnsupportedError` for weights beyond fp16.
    """
    return to_bytes(*pack(optimize(graph), quantization))


def pack(
    graph: Graph, quantization: Quantization | None = None
) -> tuple[str, dict[str, npt.NDArray[Any]]]:
    """The JSON and the tensors of a model file, as `read_model` returns them.

    The graph is optimized already. Raises as `serialize` does.
    """
    document, tensors = _pack_graph(graph)
    if quantization is not None:
        expect_type("quantization", quantization, Quantization, "the result of fit")
        if quantization.plan.values != graph.quantized_values:
            raise CalibrationError(
                f"the calibration belongs to another network: expected the values "
                f"{list(graph.quantized_values)}, got {list(quantization.plan.values)}"
            )
        document["quantization"], arrays = _pack_quantization(quantization)
        tensors |= arrays
    return json.dumps(document, allow_nan=False, sort_keys=True), tensors


def to_bytes(graph_json: str, tensors: Mapping[str, npt.NDArray[Any]]) -> bytes:
    """The bytes of a model file, from the results of `pack`."""
    from safetensors.numpy import save as to_safetensors

    metadata = {"format": FORMAT, "format_version": FORMAT_VERSION, "graph": graph_json}
    # safetensors writes the memory of an array as it is, whatever the order of its axes.
    contiguous = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    return _sort_header(to_safetensors(contiguous, metadata))


def load_graph(model: Model, limits: Limits = DEFAULT_LIMITS) -> Graph:
    """The graph of a model file or its bytes. Raises `ModelError`, `FileError`."""
    return unpack(*read_model(model, limits))


def is_calibrated(model: Model, limits: Limits = DEFAULT_LIMITS) -> bool:
    """Whether a model file has a quantization, so that all schemes can run it."""
    graph_json, _ = read_model(model, limits)
    return "quantization" in json.loads(graph_json)


def unpack(graph_json: str, tensors: Mapping[str, npt.NDArray[Any]]) -> Graph:
    """The graph that `pack` returned in this form. Raises `ModelError`."""
    try:
        document = json.loads(graph_json)
        return Graph(
            document["name"],
            tuple(InputInfo(v["name"], tuple(v["shape"])) for v in document["inputs"]),
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


def unpack_static_bounds(
    graph_json: str, tensors: Mapping[str, npt.NDArray[Any]], rule: str | None = None
) -> dict[str, Array]:
    """Static bounds lo, hi of every quantized value; empty without calibration.

    `rule` is "mean", "range" or, unless the file is older, "fitted"; None is the default of the
    file. Raises `UnsupportedError`.
    """
    quantization = json.loads(graph_json).get("quantization", {})
    if not quantization.get("static"):
        return {}
    rule = rule or quantization["default_static"]
    if rule not in quantization["static"]:
        known = ", ".join(map(repr, quantization["static"]))
        raise UnsupportedError(f"static_bounds: expected one of {known}, got {rule!r}")
    values = quantization["values"]
    rows = tensors[quantization["static"][rule]][: len(values)]  # those of densities follow
    return dict(zip(values, rows, strict=True))


def _sort_header(data: bytes) -> bytes:
    """The same file with a header that depends on its contents alone.

    safetensors orders the metadata by a hash that differs from process to process.
    """
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors stay aligned
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def _pack_graph(graph: Graph) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
    tensors: dict[str, npt.NDArray[Any]] = {}
    nodes = []
    for node in graph.nodes:
        stored = _stored(node)
        names = {key: f"{node.name}.{key}" for key in stored}
        tensors |= {names[key]: tensor for key, tensor in stored.items()}
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
    return document, tensors


def _pack_quantization(quantization: Quantization) -> tuple[dict[str, Any], dict[str, Array]]:
    """As JSON and tensors; the rows of all bound sets are concatenated."""
    document, sets = quantization.plan.to_json(), quantization.sets
    if not sets:
        return document, {}
    # A slash separates these names from those of weights, which begin with module paths.
    tensors = {
        "qparams/mean": np.concatenate([one.mean for one in sets]),
        "qparams/range": np.concatenate([one.range for one in sets]),
        "qparams/fitted": np.concatenate([one.fitted for one in sets]),
        "qparams/calibrated_range": np.concatenate([one.calibrated_range for one in sets]),
    }
    document |= {
        "static": {rule: f"qparams/{rule}" for rule in ("mean", "range", "fitted")},
        "default_static": "fitted",
        "calibrated_range": "qparams/calibrated_range",
    }
    for index, entry in enumerate(document["predictors"]):
        fitted = [one.predictors[index] for one in sets]
        entry |= {key: f"predictors/{index}/{key}" for key in ("weight", "bias")}
        tensors[entry["weight"]] = np.concatenate([predictor.weight for predictor in fitted])
        tensors[entry["bias"]] = np.concatenate([predictor.bias for predictor in fitted])
        if fitted[0].target_transform != "identity":
            entry["target_transform"] = fitted[0].target_transform
    return document, tensors


def _stored(node: Node) -> dict[str, npt.NDArray[Any]]:
    """The tensors of a node as the file holds them: weights in fp16 or int8, all others in fp32.

    Filters of tiny or huge weights have them in units of a ``scale``, a power of two.
    """
    stored: dict[str, npt.NDArray[Any]] = dict(node.tensors)
    if "int8_weight" in stored:
        stored["int8_weight"] = stored["int8_weight"].astype(np.int8)
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
