# SPDX-License-Identifier: Apache-2.0
"""Weights rounded for int8 runs: the method, and how files and engine hold them."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import qppengine as qe
from qppengine import reference
from qppengine.builder import GraphBuilder
from qppengine.model_file import load_graph, serialize
from qppengine.operations.convolution import convolve
from qppengine.passes import optimize

pytest.importorskip("safetensors")

if TYPE_CHECKING:
    from qppengine.ir import Array, Node

SHAPE = (1, 8, 9, 10)
# Filters, kernel, and the attributes of a convolution of `SHAPE`.
LAYERS: dict[str, tuple[int, tuple[int, int], dict[str, Any]]] = {
    "plain": (8, (3, 3), {"padding": 1}),
    "padded": (5, (3, 2), {"padding": (2, 0, 1, 3)}),
    "strided": (16, (3, 3), {"stride": (2, 3), "padding": 1}),
    "dilated": (8, (3, 3), {"dilation": (2, 1), "padding": 2}),
    "grouped": (12, (3, 3), {"groups": 4, "padding": 1}),
    "depthwise": (8, (3, 3), {"groups": 8, "padding": 1}),
    "multiplied": (16, (5, 5), {"groups": 8, "padding": 2}),
    "pointwise": (24, (1, 1), {}),
}


def inputs(count: int = 24) -> list[Array]:
    """Correlated channels with means unlike zero, representable in fp16."""
    rng = np.random.default_rng(1)
    mixing = rng.normal(0.3, 1, (8, 8))
    samples = (np.einsum("oi,nihw->nohw", mixing, rng.random(SHAPE)) for _ in range(count))
    return [x.astype(np.float16).astype(np.float32) for x in samples]


def network(layer: str, weight: Array | None = None) -> qe.Graph:
    filters, kernel, attributes = LAYERS[layer]
    rng = np.random.default_rng(2)
    if weight is None:
        shape = (filters, 8 // attributes.get("groups", 1), *kernel)
        weight = rng.normal(0, 0.2, shape).astype(np.float32)
    net = GraphBuilder("layer")
    bias = rng.normal(0, 0.1, filters).astype(np.float32)
    net.output(net.conv2d(net.input("x", SHAPE), weight, bias, name="conv", **attributes))
    return net.build()


def errors(node: Node, samples: list[Array]) -> Any:
    """Of the sums of an int8 layer whose input is exact, ``[N, O, H, W]``."""
    tensors = node.tensors
    rounded = tensors["int8_weight"] * tensors["int8_scale"][:, None, None, None]
    x = np.concatenate(samples).astype(np.float64)
    weight_errors: Any = rounded.astype(np.float64) - tensors["weight"].astype(np.float64)
    difference = convolve(x, weight_errors, node.attributes)
    return difference + (tensors["int8_bias"] - tensors["bias"])[:, None, None]


@pytest.mark.parametrize("layer", LAYERS)
def test_errors_have_no_mean_and_feedback_makes_none_larger(layer: str) -> None:
    samples, graph = inputs(), network(layer)
    powers = []
    for method in ("bias", "feedback"):
        (node,) = qe.quantize_weights(graph, samples, method, progress=False).nodes
        error = errors(node, samples)
        np.testing.assert_allclose(error.mean((0, 2, 3)), 0, atol=2e-6)
        powers.append((error**2).mean((0, 2, 3)))
    assert (powers[1] <= powers[0] * (1 + 1e-6)).all()
    if layer != "depthwise":
        assert powers[1].sum() < 0.9 * powers[0].sum()


def test_columns_in_blocks_and_many_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qppengine.weights._MAX_COLUMNS", 30)
    monkeypatch.setattr("qppengine.weights._MAX_WINDOWS", 64)
    samples, graph = inputs(), network("plain")
    powers = []
    for method in ("bias", "feedback"):
        (node,) = qe.quantize_weights(graph, samples, method, progress=False).nodes
        powers.append((errors(node, samples) ** 2).mean())
        np.testing.assert_allclose(errors(node, samples).mean((0, 2, 3)), 0, atol=2e-6)
    assert powers[1] < powers[0]


@pytest.mark.parametrize("layer", LAYERS)
def test_weights_on_the_grid_stay(layer: str) -> None:
    filters, kernel, attributes = LAYERS[layer]
    shape = (filters, 8 // attributes.get("groups", 1), *kernel)
    levels = np.random.default_rng(3).integers(-127, 128, shape).astype(np.float32)
    levels[:, 0, 0, 0] = 127
    (node,) = qe.quantize_weights(
        network(layer, levels / np.float32(64)), inputs(4), progress=False
    ).nodes
    np.testing.assert_array_equal(node.tensors["int8_weight"], levels)
    np.testing.assert_array_equal(node.tensors["int8_scale"], np.float32(1 / 64))
    np.testing.assert_array_equal(node.tensors["int8_bias"], node.tensors["bias"])


def test_inputs_without_information_round_to_nearest() -> None:
    graph = network("plain", np.zeros((8, 8, 3, 3), np.float32))
    (node,) = qe.quantize_weights(graph, [np.zeros(SHAPE, np.float32)], progress=False).nodes
    assert not node.tensors["int8_weight"].any()
    graph = network("plain")
    (node,) = qe.quantize_weights(graph, [np.zeros(SHAPE, np.float32)], progress=False).nodes
    weight = node.tensors["weight"] / node.tensors["int8_scale"][:, None, None, None]
    np.testing.assert_array_equal(node.tensors["int8_weight"], np.rint(weight))


def test_batches_are_samples_and_layers_in_fp16_stay() -> None:
    samples, graph = inputs(), network("plain")
    one, other = (
        qe.quantize_weights(graph, several, progress=False).nodes[0].tensors
        for several in (samples, [np.concatenate(samples)])
    )
    for name, tensor in one.items():
        np.testing.assert_array_equal(tensor, other[name])
    kept = qe.quantize_weights(qe.keep_fp16(graph, ["conv"]), samples, progress=False)
    assert kept.nodes[0].tensors.keys() == {"weight", "bias"}
    plain = qe.quantize_weights(replace(graph, nodes=kept.nodes), [], "round")
    assert plain.nodes[0].tensors.keys() == {"weight", "bias"}


def test_wrong_arguments() -> None:
    graph = network("plain")
    with pytest.raises(qe.CalibrationError, match="method: expected one of round, bias, feedback"):
        qe.quantize_weights(graph, inputs(1), "best")
    with pytest.raises(qe.CalibrationError, match="samples: expected at least one"):
        qe.quantize_weights(graph, [], progress=False)
    with pytest.raises(qe.ShapeError, match="sample 1: "):
        qe.quantize_weights(graph, [*inputs(1), np.zeros((1, 3, 9, 10), np.float32)])


def calibrated(graph: qe.Graph) -> tuple[qe.Graph, bytes]:
    samples = inputs()
    graph = qe.quantize_weights(graph, samples, progress=False)
    calibration = qe.calibrate(graph, samples, 1.0, densities=[0.03], progress=False)
    return graph, serialize(graph, qe.fit(calibration))


def with_tensors(graph: qe.Graph, **tensors: Array) -> qe.Graph:
    (node,) = graph.nodes
    return replace(graph, nodes=(replace(node, tensors={**node.tensors, **tensors}),))


@pytest.mark.parametrize("density", [None, 0.03])
@pytest.mark.parametrize("layer", LAYERS)
def test_the_engine_takes_them_to_the_bit(layer: str, density: float | None) -> None:
    """As it takes float weights that are on the grid, whatever the other float weights are."""
    pytest.importorskip("sklearn")
    if density is not None and "groups" in LAYERS[layer][2]:
        pytest.skip("grouped convolutions read an fp16 copy, with fp16 weights")
    graph, rng = network(layer), np.random.default_rng(4)
    shape = graph.nodes[0].tensors["weight"].shape
    levels = rng.integers(-127, 128, shape).astype(np.float32)
    levels[:, 0, 0, 0] = 127
    bias = np.asarray(rng.normal(0, 0.1, shape[0]), np.float32)
    rounded = {"int8_weight": levels, "int8_bias": bias}
    rounded["int8_scale"] = np.full(shape[0], 1 / 256, np.float32)
    calibration = qe.calibrate(graph, inputs(), 1.0, densities=[0.03], progress=False)
    quantization = qe.fit(calibration)
    x = inputs()[0]
    outputs = [
        qe.Session(serialize(one, quantization), "static", density=density, algorithm="direct").run(
            x
        )
        for one in (
            with_tensors(graph, **rounded),
            with_tensors(graph, weight=levels / np.float32(256), bias=bias),
        )
    ]
    np.testing.assert_array_equal(*outputs)


@pytest.mark.parametrize("scheme", ["static", "dynamic", "qpp"])
@pytest.mark.parametrize("layer", LAYERS)
def test_the_reference_and_the_engine_agree(layer: str, scheme: str) -> None:
    """But for half a step of accumulators, by which the engine moves sums, and fp16 outputs."""
    pytest.importorskip("sklearn")
    graph, data = calibrated(network(layer))
    x = inputs()[0]
    session = qe.Session(data, scheme, algorithm="direct")
    y = session.run(x)
    bounds = dict(zip(graph.quantized_values, session.qparams()[0].tolist(), strict=True))
    expected = reference.run_quantized(load_graph(data), bounds, x)["conv"]
    step = (bounds["x"][1] - bounds["x"][0]) / 255 * graph.nodes[0].tensors["int8_scale"].max()
    np.testing.assert_allclose(y, expected, rtol=2.0**-10, atol=0.6 * step)
    plain = reference.run_quantized(network(layer), bounds, x)["conv"]
    assert np.abs(y - plain).max() > 20 * step
    # fp16 runs use the float weights, whatever the others do.
    fp16 = qe.Session(data, "fp16", algorithm="direct").run(x)
    unchanged = qe.Session(serialize(network(layer)), "fp16", algorithm="direct").run(x)
    np.testing.assert_array_equal(fp16, unchanged)


def test_files_and_passes_keep_them() -> None:
    graph = qe.quantize_weights(network("plain"), inputs(4), progress=False)
    (node,) = load_graph(serialize(graph)).nodes
    for name in ("int8_weight", "int8_scale", "int8_bias"):
        np.testing.assert_array_equal(node.tensors[name], graph.nodes[0].tensors[name])
    assert optimize(graph).nodes[0].tensors.keys() == graph.nodes[0].tensors.keys()


def test_onnx_models_have_them() -> None:
    pytest.importorskip("sklearn")
    onnxruntime = pytest.importorskip("onnxruntime")
    _, data = calibrated(network("plain"))
    x = inputs()[0]
    model = qe.to_onnx(data, "range").SerializeToString()
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    (y,) = onnxruntime.InferenceSession(model, options).run(None, {"x": x})
    session = qe.Session(data, "static", static_bounds="range", algorithm="direct")
    np.testing.assert_allclose(y, session.run(x), atol=4e-3)


def altered(data: bytes, name: str, tensor: Any = None) -> bytes:
    """A file with another tensor, or without it."""
    from safetensors.numpy import load, save

    length = int.from_bytes(data[:8], "little")
    metadata = json.loads(data[8 : 8 + length])["__metadata__"]
    graph, tensors = json.loads(metadata["graph"]), load(data)
    if tensor is None:
        del tensors[name], graph["nodes"][0]["tensors"][name.split(".")[1]]
    else:
        tensors[name] = tensor
    return bytes(save(tensors, metadata | {"graph": json.dumps(graph)}))


@pytest.mark.parametrize(
    ("name", "tensor", "problem"),
    [
        ("int8_weight", np.zeros((8, 8, 3, 3), np.float16), "int8 weights of dtype I8"),
        ("int8_weight", np.zeros((8, 8, 3, 2), np.int8), "int8_weight of the shape of the weight"),
        ("int8_weight", np.full((8, 8, 3, 3), -128, np.int8), "from -127 to 127, got -128"),
        ("int8_weight", None, "int8_weight"),
        ("int8_scale", None, "int8_scale"),
        ("int8_bias", None, "int8_bias"),
        ("int8_scale", np.ones(7, np.float32), "int8_scale of 8 elements, got 7"),
        ("int8_scale", np.zeros(8, np.float32), "int8_scale above 0"),
        ("int8_scale", -np.ones(8, np.float32), "int8_scale above 0"),
        ("int8_scale", np.full(8, 1e-40, np.float32), "int8_scale above 0"),
        ("int8_scale", np.full(8, 3e38, np.float32), "int8_scale above 0"),
        ("int8_scale", np.full(8, np.nan, np.float32), "NaN or infinity"),
        ("int8_bias", np.full(8, np.inf, np.float32), "NaN or infinity"),
        ("int8_bias", np.ones(8, np.int8), "dtype F16 or F32, got I8"),
        ("weight", np.ones((8, 8, 3, 3), np.int8), "dtype F16 or F32, got I8"),
    ],
)
def test_files_with_broken_ones_are_refused(name: str, tensor: Any, problem: str) -> None:
    data = serialize(qe.quantize_weights(network("plain"), inputs(2), progress=False))
    with pytest.raises(qe.ModelError, match=problem):
        qe.Session(altered(data, f"conv.{name}", tensor), "fp16")


@pytest.mark.parametrize(
    ("tensors", "problem"),
    [
        ({"int8_scale": None}, "expected all or none of the tensors"),
        ({"int8_weight": np.full((8, 8, 3, 3), 0.5, np.float32)}, "whole numbers from -127"),
        ({"int8_weight": np.full((8, 8, 3, 3), 128, np.float32)}, "whole numbers from -127"),
        ({"int8_weight": np.zeros((8, 8, 3, 1), np.float32)}, "int8_weight of the weight's shape"),
        ({"int8_scale": np.zeros(8, np.float32)}, "int8_scale must be above 0"),
        ({"int8_bias": np.zeros(9, np.float32)}, "expected int8_bias of length 8, got 9"),
    ],
)
def test_graphs_with_broken_ones_are_refused(tensors: Any, problem: str) -> None:
    graph = qe.quantize_weights(network("plain"), inputs(2), progress=False)
    changed = {**graph.nodes[0].tensors, **tensors}
    kept = {name: tensor for name, tensor in changed.items() if tensor is not None}
    with pytest.raises(qe.ModelError, match=problem):
        replace(graph, nodes=(replace(graph.nodes[0], tensors=kept),))
