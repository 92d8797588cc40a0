# SPDX-License-Identifier: Apache-2.0
"""Every operation, from PyTorch through the importer and the model file to the engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import qppengine as qe
from qppengine import Session, from_torch, reference
from qppengine.metrics import sqnr
from qppengine.model_file import serialize

pytest.importorskip("safetensors")
pytest.importorskip("sklearn")
torch = pytest.importorskip("torch")

import cases  # noqa: E402
import torch.nn.functional as F  # noqa: E402, N812
from cases import expected, images  # noqa: E402
from torch import nn  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from qppengine.ir import Array

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")

QUANTIZED = ("static", "dynamic", "qpp")


def relative_rms(y: Array, reference: Array) -> float:
    return float(np.sqrt(np.mean((y - reference) ** 2) / np.mean(reference**2)))


def open_session(data: bytes, scheme: str, **options: Any) -> Session:
    # Many elements of images this small exceed the mean bounds of the others.
    return Session(data, scheme, static_bounds="range" if scheme == "static" else None, **options)


def calibrated(graph: qe.Graph, samples: list[Array]) -> bytes:
    return serialize(graph, qe.fit(qe.calibrate(graph, samples, 0.9999, progress=False)))


@pytest.fixture(params=cases.BLOCKS, scope="module")
def module(request: pytest.FixtureRequest) -> Any:
    return cases.network(request.param, tail=True)


@pytest.mark.parametrize(
    ("name", "tail"), [(name, False) for name in cases.CASES] + [(n, True) for n in cases.BLOCKS]
)
def test_operation_in_fp16_is_that_of_torch(name: str, tail: bool) -> None:
    module = cases.network(name, tail=tail)
    x = images(1)[0]
    graph = from_torch(module, x, dynamic_shapes={})
    y = expected(module, x)
    # Tensors of other than four dimensions keep the order of their elements.
    z = reference.run(graph, x)[0].reshape(y.shape)
    np.testing.assert_allclose(z, y, rtol=1e-4, atol=1e-4)
    assert relative_rms(Session(serialize(graph), "fp16").run(x).reshape(y.shape), y) < 2e-3


def test_operation_in_int8_is_near(module: Any) -> None:
    samples = images(12)
    graph = from_torch(module, samples[0], dynamic_shapes={})
    data = calibrated(graph, samples)
    y = expected(module, samples[0])
    for scheme in QUANTIZED:
        session = open_session(data, scheme, threads=2)
        assert sqnr(session.run(samples[0]), y) > 24, scheme
        held = {step["node"]: step["dtype"] for step in session.explain() if step["dtype"]}
        assert held[graph.nodes[-1].inputs[0]] == "qai8"


def test_int8_is_what_the_reference_makes_of_the_same_bounds(module: Any) -> None:
    samples = images(12)
    graph = from_torch(module, samples[0], dynamic_shapes={})
    session = Session(calibrated(graph, samples), "static", algorithm="direct")
    y = session.run(samples[0])
    bounds = dict(zip(graph.quantized_values, session.qparams()[0].tolist(), strict=True))
    z = reference.run_quantized(graph, bounds, samples[0])[graph.outputs[0]]
    # A few numbers near the middle between two levels go to the other one.
    assert sqnr(y, z) > 33


def test_operation_in_front_of_int8_can_keep_fp16(module: Any) -> None:
    samples = images(12)
    graph = from_torch(module, samples[0], dynamic_shapes={})
    graph = qe.keep_fp16(graph, [node.name for node in graph.nodes[:-1]])
    data = calibrated(graph, samples)
    for scheme in QUANTIZED:
        session = open_session(data, scheme, algorithm="direct")
        y = session.run(samples[0])
        held = [step["node"] for step in session.explain() if step["dtype"] == "qai8"]
        assert held in ([graph.nodes[-1].inputs[0]], [graph.nodes[-2].name])
        bounds = dict(zip(graph.quantized_values, session.qparams()[0].tolist(), strict=True))
        z = reference.run_quantized(graph, bounds, samples[0])[graph.outputs[0]]
        assert sqnr(y, z) > 33, scheme


ARRANGEMENTS: Mapping[str, Callable[[qe.GraphBuilder, str], str]] = {
    "slice_channels": lambda net, x: net.slice(x, 1, -9, 11, 2),
    "slice_rows": lambda net, x: net.slice(x, 2, 1, -1),
    "slice_columns": lambda net, x: net.slice(x, 3, 0, None, 3),
    "zeros": lambda net, x: net.pad(x, (1, 0, 2, 3)),
    "crop": lambda net, x: net.pad(x, (-1, 2, 0, -3)),
    "reflect": lambda net, x: net.pad(x, (5, 0, 1, 4), mode="reflect"),
    "replicate": lambda net, x: net.pad(x, (0, 7, 9, 1), mode="replicate"),
    "flatten": lambda net, x: net.flatten(x),
    "transpose": lambda net, x: net.rearrange(x, (12, 6, 8), (2, 0, 1)),
    "shuffle": lambda net, x: net.rearrange(x, (3, 4, None, None), (1, 0, 2, 3)),
    "merge": lambda net, x: net.rearrange(x, (2, 6, 3, 2, 8), (1, 4, 0, 3, 2)),
    "matrix": lambda net, x: net.rearrange(x, (12, 48), (1, 0)),
    "pixel_shuffle": lambda net, x: net.pixel_shuffle(x, 2),
    "pixel_unshuffle": lambda net, x: net.pixel_unshuffle(x, 2),
    "max_pool": lambda net, x: net.max_pool2d(x, (2, 3), stride=1, dilation=(3, 2)),
    "adaptive_max_pool": lambda net, x: net.adaptive_max_pool2d(x, (4, 11)),
    "argmax": lambda net, x: net.argmax(x),
    "nearest-exact": lambda net, x: net.resize(x, size=(13, 5), mode="nearest-exact"),
}


@pytest.mark.parametrize("name", ARRANGEMENTS)
def test_batches_are_arranged_exactly_by_several_threads(name: str) -> None:
    net = qe.GraphBuilder(name)
    net.output(ARRANGEMENTS[name](net, net.input("x", (2, 12, 6, 8))))
    graph = net.build()
    noise = np.random.default_rng(1).normal(0, 1, (2, 12, 6, 8))
    x = noise.astype(np.float16).astype(np.float32)
    y = Session(serialize(graph), "fp16", threads=3).run(x)
    np.testing.assert_array_equal(y, reference.run(graph, x)[0])


@pytest.mark.parametrize("height", [1, 7])
@pytest.mark.parametrize("flatten", [nn.Flatten(), lambda x: x.view(1, -1)])
def test_linear_layers_read_images(height: int, flatten: Any) -> None:
    class Classifier(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 9, 3, padding=1)
            self.drop = nn.Dropout()
            self.fc1 = nn.Linear(9 * height * 5, 20)
            self.fc2 = nn.Linear(20, 6)

        def forward(self, x: Any) -> Any:
            return self.fc2(F.relu(self.fc1(self.drop(flatten(F.relu(self.conv(x)))))))

    torch.manual_seed(4)
    module = Classifier().eval()
    samples = images(12, height, 5)
    graph = from_torch(module, samples[0], dynamic_shapes={})
    assert [node.op for node in graph.nodes] == ["conv2d"] * 3
    assert graph.nodes[1].tensors["weight"].shape == (20, 9, height, 5)
    y = expected(module, samples[0])
    data = calibrated(graph, samples)
    assert relative_rms(Session(data, "fp16").run(samples[0]), y) < 2e-3
    for scheme in QUANTIZED:
        assert sqnr(open_session(data, scheme).run(samples[0]), y) > 24


def test_flattened_images_are_ordered_as_in_torch() -> None:
    x = images(1)[0]
    graph = from_torch(nn.Flatten(), x, dynamic_shapes={})
    np.testing.assert_array_equal(Session(serialize(graph), "fp16").run(x).ravel(), x.ravel())


@pytest.fixture(scope="module")
def resnet() -> Any:
    from qppengine.models.resnet import ResNet

    torch.manual_seed(6)
    module = ResNet((2, 1, 1, 1), width=8, classes=10)
    for norm in (m for m in module.modules() if isinstance(m, nn.BatchNorm2d)):
        nn.init.uniform_(norm.weight, 0.5, 1)
        nn.init.uniform_(norm.bias, -0.2, 0.2)
        nn.init.uniform_(norm.running_var, 0.5, 2)
    return module.eval()


def test_resnet_runs_in_every_scheme(resnet: Any) -> None:
    samples = images(12, 64, 64)
    graph = from_torch(resnet, samples[0])
    assert graph.shapes["x"] == (1, 3, None, None)
    data = calibrated(graph, samples)
    for x in (samples[0], images(1, 48, 80)[0]):
        assert relative_rms(Session(data, "fp16").run(x), expected(resnet, x)) < 1e-2
    y = expected(resnet, samples[0])
    for scheme in QUANTIZED:
        assert sqnr(open_session(data, scheme).run(samples[0]), y) > 20


def test_residual_values_exist_once_in_int8(resnet: Any) -> None:
    samples = images(12, 64, 64)
    graph = from_torch(resnet, samples[0])
    session = Session(calibrated(graph, samples), "static")
    session.run(samples[0])
    steps = session.explain()
    assert [step["op"] for step in steps if step["dtype"] == "f16"] == ["conv2d"]  # the scores
    assert [step["op"] for step in steps].count("quantize") == 1  # the input
    assert {step["dtype"] for step in steps if step["op"] in ("add", "max_pool2d")} == {"qai8"}
    assert not [step for step in steps if step["op"] == "activation"]


def test_resnets_have_the_parameters_of_torchvision() -> None:
    from qppengine.models.resnet import resnet18, resnet34

    assert sum(p.numel() for p in resnet18().parameters()) == 11_689_512
    assert sum(p.numel() for p in resnet34().parameters()) == 21_797_672
    keys = resnet18(width=4).state_dict().keys()
    for key in ("conv1.weight", "bn1.running_mean", "layer1.0.conv1.weight", "fc.bias"):
        assert key in keys
    assert "layer2.0.downsample.1.weight" in keys
    assert "layer1.0.downsample.0.weight" not in keys


@pytest.fixture(scope="module", params=["segmentation", "heatmaps"])
def hrnet(request: pytest.FixtureRequest) -> Any:
    from qppengine.models.hrnet import HRNetV2

    torch.manual_seed(7)
    module = HRNetV2(5, width=6, head=request.param, modules=(1, 1, 1), blocks=1)
    for norm in (m for m in module.modules() if isinstance(m, nn.BatchNorm2d)):
        nn.init.uniform_(norm.bias, -0.2, 0.2)
        nn.init.uniform_(norm.running_var, 0.3, 0.6)
    return module.eval()


def test_hrnet_runs_in_every_scheme(hrnet: Any) -> None:
    samples = images(8, 64, 64)
    graph = from_torch(hrnet, samples[0])
    data = calibrated(graph, samples)
    for x in (samples[0], images(1, 32, 96)[0]):
        assert relative_rms(Session(data, "fp16").run(x), expected(hrnet, x)) < 1e-2
    y = expected(hrnet, samples[0])
    for scheme in QUANTIZED:
        assert sqnr(open_session(data, scheme).run(samples[0]), y) > 15
    session = Session(data, "static")
    session.run(samples[0])
    steps = session.explain()
    assert [step["op"] for step in steps if step["dtype"] == "f16"] == ["conv2d"]  # the maps
    assert [step["op"] for step in steps].count("quantize") == 1  # the input
    assert [step["op"] for step in steps].count("concat") == 1


def test_hrnet_predicts_branch_by_branch(hrnet: Any) -> None:
    samples = images(8, 64, 64)
    graph = from_torch(hrnet, samples[0])
    first = graph.nodes[0].output
    branches = [node.output for node in graph.nodes if node.name.startswith("transition")]
    calibration = qe.calibrate(
        graph, samples, 0.9999, positions=[graph.inputs[0].name, first, *branches], progress=False
    )
    served = [position.value for position in calibration.plan.positions]
    assert served[1:] == [first, *branches]
    y = expected(hrnet, samples[0])
    assert sqnr(Session(serialize(graph, qe.fit(calibration)), "qpp").run(samples[0]), y) > 15


def test_hrnet_w18_has_the_parameters_of_its_authors() -> None:
    from qppengine.models.hrnet import hrnet_w18

    module = hrnet_w18()
    assert round(sum(p.numel() for p in module.parameters()) / 1e6, 1) == 9.6
    keys = module.state_dict().keys()
    for key in (
        "layer1.0.downsample.1.weight",
        "transition1.0.1.bias",
        "transition2.2.0.0.weight",
        "stage4.2.branches.3.3.conv2.weight",
        "stage3.0.fuse_layers.2.0.1.1.running_var",
        "stage2.0.fuse_layers.0.1.0.weight",
        "last_layer.3.bias",
    ):
        assert key in keys
    assert "head.0.weight" in hrnet_w18(29, "heatmaps").state_dict()
