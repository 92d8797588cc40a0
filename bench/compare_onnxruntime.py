# SPDX-License-Identifier: Apache-2.0
"""Compare the speed of direct int8 convolutions and of networks with ONNX Runtime.

    pip install .[bench,demo,torch] && cmake --workflow --preset host
    python bench/compare_onnxruntime.py

Of convolutions both run 3x3, stride 1, 64 channels to 64 filters with one scale per filter, ReLU
and a requantized int8 output. ONNX Runtime runs the operator that its quantizer makes,
QLinearConv. Networks have random weights and static bounds; ONNX Runtime runs the output of its
own quantizer for the same module, all layers in int8 with one scale per filter. All runs are on
one thread, the two take turns, and the fastest run of each counts.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
import onnx
import onnxruntime
import qppengine as qe
import torch
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
from qppengine.model_file import serialize
from qppengine.models.zoo import NETWORKS

if TYPE_CHECKING:
    from collections.abc import Callable

    from qppengine.models.zoo import Network

SIZES = (56, 112, 224)
DEPTH = 64  # channels and filters
KERNEL = 3
COMPARED = ("resnet18", "hrnet_w18_cityscapes", "espcn_x3")
SAMPLES = 8  # photographs to calibrate on
BENCH = Path(__file__).resolve().parent.parent / "build" / "host" / "qpp_bench"


def make_session(size: int, activations: str) -> onnxruntime.InferenceSession:
    """A model of one QLinearConv with `activations` "uint8" or "int8"."""
    random = np.random.default_rng(1)
    kind = np.dtype(activations)
    constants = {
        "x_scale": np.float32(0.01),
        "x_zero_point": np.array(128 if activations == "uint8" else 0, kind),
        "w": random.integers(-127, 128, (DEPTH, DEPTH, KERNEL, KERNEL), np.int8),
        "w_scale": random.uniform(0.001, 0.002, DEPTH).astype(np.float32),
        "w_zero_point": np.zeros(DEPTH, np.int8),
        "y_scale": np.float32(0.1),
        "y_zero_point": np.array(
            0 if activations == "uint8" else -128, kind
        ),  # ReLU: zero is least
        "bias": random.integers(-1000, 1000, DEPTH).astype(np.int32),
    }
    inputs = ["x", *(name for name in constants)]
    node = helper.make_node(
        "QLinearConv", inputs, ["y"], kernel_shape=[KERNEL, KERNEL], pads=[KERNEL // 2] * 4
    )
    element = TensorProto.UINT8 if activations == "uint8" else TensorProto.INT8
    shape = [1, DEPTH, size, size]
    graph = helper.make_graph(
        [node],
        "conv",
        [helper.make_tensor_value_info("x", element, shape)],
        [helper.make_tensor_value_info("y", element, shape)],
        [numpy_helper.from_array(np.asarray(v), name) for name, v in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    return load(model)


def load(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    """The model on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def time_onnxruntime(session: onnxruntime.InferenceSession, size: int, iters: int) -> float:
    """Milliseconds of the fastest run, input and output bound in place."""
    kind = np.uint8 if "uint8" in session.get_inputs()[0].type else np.int8
    x = np.random.default_rng(2).integers(0, 127, (1, DEPTH, size, size)).astype(kind)
    binding = session.io_binding()
    binding.bind_ortvalue_input("x", onnxruntime.OrtValue.ortvalue_from_numpy(x))
    binding.bind_ortvalue_output("y", onnxruntime.OrtValue.ortvalue_from_numpy(np.empty_like(x)))
    session.run_with_iobinding(binding)
    times = []
    for _ in range(iters):
        start = time.perf_counter()
        session.run_with_iobinding(binding)
        times.append(time.perf_counter() - start)
    return min(times) * 1000


def time_qppengine(bench: Path, size: int, iters: int) -> dict[str, Any]:
    """The report of `qpp_bench conv`."""
    command = [bench, "conv", "--dtype", "int8", "--size", f"{size}x{size}x{DEPTH}"]
    command += ["--filters", str(DEPTH), "--kernel", str(KERNEL), "--algorithm", "direct"]
    command += ["--iters", str(iters), "--json"]
    result = subprocess.run([str(c) for c in command], check=True, capture_output=True, text=True)
    report: dict[str, Any] = json.loads(result.stdout)
    return report


def compare(size: int, rounds: int, iters: int, bench: Path) -> dict[str, Any]:
    """Throughputs in GMAC/s. ONNX Runtime shows its better type of activations."""
    sessions = {name: make_session(size, name) for name in ("uint8", "int8")}
    best = dict.fromkeys([*sessions, "ours"], float("inf"))
    kernel = ""
    for _ in range(rounds):
        report = time_qppengine(bench, size, iters)
        kernel = report["kernel"]
        best["ours"] = min(best["ours"], report["ms_min"])
        for name, session in sessions.items():
            best[name] = min(best[name], time_onnxruntime(session, size, iters))
    macs = size * size * DEPTH * DEPTH * KERNEL * KERNEL
    theirs = min(best[name] for name in sessions)
    return {
        "size": f"{size}x{size}x{DEPTH}",
        "kernel": kernel,
        "qppengine_ms": round(best["ours"], 3),
        "onnxruntime_uint8_ms": round(best["uint8"], 3),
        "onnxruntime_int8_ms": round(best["int8"], 3),
        "qppengine_gmacs": round(macs / best["ours"] / 1e6, 1),
        "onnxruntime_gmacs": round(macs / theirs / 1e6, 1),
        "ratio": round(theirs / best["ours"], 3),
    }


class Photographs(CalibrationDataReader):  # type: ignore[misc]
    """What ONNX Runtime's quantizer calibrates on."""

    def __init__(self, network: Network) -> None:
        self.inputs = network.inputs(SAMPLES)

    def get_next(self) -> dict[str, Any] | None:
        """The next sample by the name of the input; None after the last."""
        x = next(self.inputs, None)
        return None if x is None else {"x": x}


def quantize_for_onnxruntime(network: Network, module: torch.nn.Module) -> onnx.ModelProto:
    """The int8 model that ONNX Runtime's own quantizer makes."""
    example = torch.zeros(1, network.channels, network.height, network.width)
    with tempfile.TemporaryDirectory() as folder:
        plain, quantized = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        torch.onnx.export(module, (example,), str(plain), input_names=["x"], dynamo=False)
        quantize_static(
            plain,
            quantized,
            Photographs(network),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        return onnx.load(quantized)


def compare_network(name: str, rounds: int) -> dict[str, Any]:
    """Milliseconds of both, static int8."""
    network = NETWORKS[name]
    module = network.untrained()
    graph = network.graph(module, name)
    model = serialize(
        graph, qe.fit(qe.calibrate(graph, network.inputs(SAMPLES), 1.0, progress=False))
    )
    x = next(network.inputs(1, "test"))
    ours = qe.Session(model, "static", algorithm="direct")
    theirs = load(quantize_for_onnxruntime(network, module))
    runs: dict[str, Callable[[], Any]] = {
        "qppengine_ms": lambda: ours.run(x),
        "onnxruntime_ms": lambda: theirs.run(None, {theirs.get_inputs()[0].name: x}),
    }
    best = dict.fromkeys(runs, float("inf"))
    for turn in range(rounds + 1):
        for key, run in runs.items():
            start = time.perf_counter()
            run()
            if turn > 0:  # the first plans and warms up
                best[key] = min(best[key], (time.perf_counter() - start) * 1000)
    return {
        "network": name,
        "size": f"{network.height}x{network.width}x{network.channels}",
        **{key: round(milliseconds, 3) for key, milliseconds in best.items()},
        "ratio": round(best["onnxruntime_ms"] / best["qppengine_ms"], 3),
    }


@click.command(help=(__doc__ or "").split("\n\n", maxsplit=1)[0])
@click.option("--rounds", default=5, show_default=True, help="Turns that each of the two takes.")
@click.option("--iters", default=20, show_default=True, help="Runs in a turn.")
@click.option(
    "--bench", type=click.Path(exists=True, path_type=Path), default=BENCH, help="qpp_bench to run."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def main(rounds: int, iters: int, bench: Path, as_json: bool) -> None:
    """Prints a row per convolution and per network."""
    os.environ.pop("QPP_FORCE_KERNEL", None)
    rows = [compare(size, rounds, iters, bench) for size in SIZES]
    networks = [compare_network(name, rounds) for name in COMPARED]
    if as_json:
        report = {
            "onnxruntime": onnxruntime.__version__,
            "threads": 1,
            "sizes": rows,
            "networks": networks,
        }
        click.echo(json.dumps(report, indent=2))
        return
    click.echo(f"{'size':12}{'ours':>8}{'ORT ' + onnxruntime.__version__:>14}  GMAC/s, one thread")
    for row in rows:
        click.echo(
            f"{row['size']:12}{row['qppengine_gmacs']:8}{row['onnxruntime_gmacs']:14}"
            f"  ratio {row['ratio']:.2f}"
        )
    click.echo(f"\n{'network':24}{'size':12}{'ours':>8}{'ORT':>8}  ms, one thread")
    for row in networks:
        click.echo(
            f"{row['network']:24}{row['size']:12}{row['qppengine_ms']:8.1f}"
            f"{row['onnxruntime_ms']:8.1f}  ratio {row['ratio']:.2f}"
        )


if __name__ == "__main__":
    main()
