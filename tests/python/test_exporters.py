# SPDX-License-Identifier: Apache-2.0
"""Exported networks: ONNX Runtime and the engine give the same results."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pytest
import qppengine as qe
import qppengine.models
from qppengine import reference
from qppengine.metrics import sqnr
from qppengine.operations import OPERATIONS

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("torch")

import cases
import onnx
import onnxruntime
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from qppengine.ir import Array

ESPCN = Path(qppengine.models.__file__).parent / "espcn_x3.pt2"


def run_onnx(model: Any, x: Array, *, fused: bool = True) -> Array:
    onnx.checker.check_model(model, full_check=True)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    if not fused:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    return np.asarray(session.run(None, {session.get_inputs()[0].name: x})[0])


def save(path: Path, graph: qe.Graph, samples: Sequence[Array]) -> Path:
    qe.save(path, graph, qe.calibrate(graph, samples, 0.9998, progress=False))
    return path


def images(count: int, channels: int, height: int, width: int) -> list[Array]:
    """Blocks of one brightness with some noise, exact in fp16, in which the engine takes them.

    Of such numbers, none is in the middle between two levels, where q = x / scale depends on how
    the scale is rounded.
    """
    rng = np.random.default_rng(4)
    blocks = rng.random((count, channels, height // 8, width // 8))
    noisy = np.kron(blocks, np.ones((8, 8))) + rng.normal(0, 0.02, (count, channels, height, width))
    return list((0.45 * noisy).clip(0, 0.45).astype(np.float16).astype(np.float32)[:, None])


def differences(
    path: Path, x: Array, static_bounds: str | None = None, *, fused: bool = True
) -> Array:
    """Engine and ONNX Runtime, in units of the step that the output would have in int8."""
    y = qe.Session(path, "static", static_bounds=static_bounds).run(x)
    e = run_onnx(qe.to_onnx(path, static_bounds), x, fused=fused)
    return np.asarray(np.abs(y - e) * 255 / (e.max() - e.min()))


def test_every_operation_of_a_file_has_an_exporter() -> None:
    folded = {"batch_norm", "conv_transpose2d"}
    assert {name for name, schema in OPERATIONS.items() if schema.export is None} == folded


@pytest.mark.parametrize("static_bounds", ["mean", "range", "fitted"])
def test_espcn(static_bounds: str, tmp_path: Path) -> None:
    *samples, x = images(20, 1, 48, 64)
    path = save(tmp_path / "espcn.qpp", qe.from_torch(ESPCN), samples)
    assert differences(path, x, static_bounds).max() <= 1
    kinds = [node.op_type for node in qe.to_onnx(path).graph.node]
    assert kinds.count("QuantizeLinear") == 3
    assert kinds.count("DequantizeLinear") == 3 + 3 + 1  # values, weights, the bias without tanh


class Residual(nn.Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 2, 1)
        self.first, self.second = (nn.Conv2d(16, 16, 3, padding=1) for _ in range(2))
        self.down, self.skip = nn.Conv2d(16, 32, 3, 2, 1), nn.Conv2d(16, 32, 1, 2)
        self.third = nn.Conv2d(32, 32, 3, padding=1)
        self.join, self.tail = nn.Conv2d(80, 24, 1), nn.Conv2d(24, 8, 3, padding=1)
        self.fc = nn.Linear(8, 10)

    def forward(self, x: Any) -> Any:
        x = F.max_pool2d(F.relu(self.stem(x)), 3, 2, 1)
        x = F.relu(x + self.second(F.relu(self.first(x))))
        y = F.relu(self.skip(x) + self.third(F.relu(self.down(x))))
        up = F.interpolate(y, scale_factor=2, mode="bilinear")
        coarse = F.interpolate(F.avg_pool2d(y, 2), scale_factor=4)
        z = F.relu(self.join(torch.cat([x, up, coarse], 1)))
        return self.fc(F.adaptive_avg_pool2d(F.relu6(self.tail(z)), 1).flatten(1))


def test_network_with_residuals_concat_pools_and_resize(tmp_path: Path) -> None:
    torch.manual_seed(1)
    *samples, x = images(20, 3, 64, 64)
    graph = qe.from_onnx(cases.to_onnx(Residual().eval(), torch.from_numpy(x)))
    assert differences(save(tmp_path / "net.qpp", graph, samples), x).max() <= 1


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("name", [name for name in cases.CASES if name not in cases.NOT_IN_ONNX])
def test_small_networks(name: str, tmp_path: Path) -> None:
    *samples, x = cases.images(8)
    module = cases.network(name, tail=name in cases.BLOCKS)
    graph = qe.from_onnx(cases.to_onnx(module, torch.from_numpy(x)))
    steps = differences(save(tmp_path / "net.qpp", graph, samples), x, "mean")
    # The engine's bilinear resizing of int8 rounds its weights.
    assert np.sqrt((steps**2).mean()) <= (0.7 if name.startswith("bilinear") else 0.2)


Block: TypeAlias = "Callable[[qe.GraphBuilder, str], str]"


def assert_fuses_without_loss(block: Block, path: Path) -> None:
    """Between two convolutions, optimizations of ONNX Runtime do not change results."""
    rng = np.random.default_rng(7)
    net = qe.GraphBuilder("net")
    x = net.input("x", (None, 3, 9, 11))
    y = block(net, net.conv2d(x, rng.normal(0, 0.2, (4, 3, 3, 3)), padding=1, activation="relu"))
    channels = net.shape(y)[1] or 0
    net.output(net.conv2d(y, rng.normal(0, 0.5, (5, channels, 1, 1))))
    samples = [rng.random((1, 3, 9, 11), np.float32) for _ in range(8)]
    graph = net.build()
    qe.save(path, graph, qe.calibrate(graph, samples, 1.0, progress=False))
    expected = qe.Session(path, "static", static_bounds="range").run(samples[0])
    for fused in (False, True):
        result = run_onnx(qe.to_onnx(path, "range"), samples[0], fused=fused)
        assert sqnr(result, expected) > 35, fused


@pytest.mark.parametrize("small", [1, 1e-4, 1e-5, 1e-7, 0])
@pytest.mark.parametrize("activation", ["none", "relu", "tanh"])
def test_biases_next_to_small_weights_fit_int32(
    small: float, activation: str, tmp_path: Path
) -> None:
    rng = np.random.default_rng(1)
    weight = rng.normal(0, 0.2, (4, 4, 3, 3)).astype(np.float32)
    weight[1] *= small

    def block(net: qe.GraphBuilder, y: str) -> str:
        return net.conv2d(y, weight, [0.1, 5, -20, 0], padding=1, activation=activation)

    assert_fuses_without_loss(block, tmp_path / "net.qpp")
    for tensor in qe.to_onnx(tmp_path / "net.qpp").graph.initializer:
        if tensor.data_type == onnx.TensorProto.INT32:
            assert np.abs(onnx.numpy_helper.to_array(tensor).astype(np.int64)).max() <= 2**30


def test_sums_beyond_int32_are_left_to_float(tmp_path: Path) -> None:
    def block(net: qe.GraphBuilder, y: str) -> str:
        wide = net.conv2d(y, np.ones((2000, 4, 1, 1)), activation="relu")
        return net.conv2d(wide, np.ones((2, 2000, 5, 5)) / 50_000, padding=2)

    assert_fuses_without_loss(block, tmp_path / "net.qpp")
    model = qe.to_onnx(tmp_path / "net.qpp")
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    assert types["conv2d_1/weight"] == onnx.TensorProto.INT8
    assert types["conv2d_2/weight"] == onnx.TensorProto.FLOAT


@pytest.mark.parametrize("padding", [0, 1, (0, 0, 1, 1), (1, 0, 0, 1)])
@pytest.mark.parametrize("count_include_pad", [False, True])
def test_average_pools_whose_last_window_is_cut(
    padding: Any, count_include_pad: bool, tmp_path: Path
) -> None:
    for kernel, stride in ((2, 3), (3, 2), (3, 3), ((4, 3), 2)):

        def block(net: qe.GraphBuilder, y: str, kernel: Any = kernel, stride: int = stride) -> str:
            return net.avg_pool2d(
                y,
                kernel,
                stride=stride,
                padding=padding,
                ceil_mode=True,
                count_include_pad=count_include_pad,
            )

        assert_fuses_without_loss(block, tmp_path / "net.qpp")


@pytest.mark.parametrize("target", [{"size": (7, 13)}, {"scale": (2.0, 1.5)}])
@pytest.mark.parametrize("mode", ["nearest", "nearest-exact", "bilinear"])
def test_resizing_next_to_a_depthwise_convolution(target: Any, mode: str, tmp_path: Path) -> None:
    """For which ONNX Runtime moves the channels to the end."""
    weight = np.random.default_rng(2).normal(0, 0.3, (4, 1, 3, 3))

    def block(net: qe.GraphBuilder, y: str) -> str:
        return net.conv2d(net.resize(y, mode=mode, **target), weight, groups=4)

    assert_fuses_without_loss(block, tmp_path / "net.qpp")


def test_a_file_without_calibration_is_float(graph: qe.Graph, tmp_path: Path) -> None:
    path = tmp_path / "small.qpp"
    qe.save(path, graph)
    model = qe.to_onnx(path)
    assert "QuantizeLinear" not in {node.op_type for node in model.graph.node}
    x = np.random.default_rng(3).random((2, 3, 20, 24)).astype(np.float32)
    expected = reference.run(qe.load_graph(path), x)[0]
    np.testing.assert_allclose(run_onnx(model, x), expected, rtol=1e-4, atol=1e-5)


def test_another_rule_of_bounds_is_refused(model: Path) -> None:
    with pytest.raises(qe.UnsupportedError, match="static_bounds: expected"):
        qe.to_onnx(model, "median")


def test_drawing() -> None:
    net = qe.GraphBuilder('a "net"')
    x = net.input("x", (1, 2, None, 8))
    y = net.conv2d(x, np.ones((4, 2, 3, 3), np.float32), activation="relu", name="conv")
    net.output(net.add(y, y, name="sum"))
    assert (
        qe.to_dot(net.build())
        == r"""digraph "a \"net\"" {
  node [shape=box];
  "input x" [label="x", shape=ellipse];
  "conv" [label="conv\nconv2d, relu"];
  "input x" -> "conv" [label="1x2x?x8", color="#1f5fa8", penwidth=2];
  "sum" [label="sum\nadd"];
  "conv" -> "sum" [label="1x4x?x6"];
  "conv" -> "sum" [label="1x4x?x6"];
  "output sum" [label="sum", shape=ellipse];
  "sum" -> "output sum" [label="1x4x?x6"];
}
"""
    )
