# SPDX-License-Identifier: Apache-2.0
"""The networks of the paper at full width and depth, from PyTorch to the engine.

Weights are random, images smaller than usual. bench/accuracy/make_networks.py and
`qppengine compare` show the accuracy at full size.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import qppengine as qe
from qppengine.metrics import sqnr
from qppengine.model_file import serialize

pytest.importorskip("safetensors")
pytest.importorskip("sklearn")
pytest.importorskip("PIL")
torch = pytest.importorskip("torch")

from qppengine.models.zoo import NETWORKS  # noqa: E402

if TYPE_CHECKING:
    from qppengine.ir import Array

SIZES = {"resnet18": 96, "resnet34": 96, "hrnet_w18_cityscapes": 64, "espcn_x3": 48}
WEIGHTS = {"f16": "f", "qai8": "qsi8cx"}  # of the kernels of convolutions, by source


class Case(NamedTuple):
    name: str
    graph: qe.Graph
    data: bytes
    x: Array
    expected: Array  # by PyTorch, of x


@pytest.fixture(scope="module", params=SIZES)
def case(request: pytest.FixtureRequest) -> Case:
    name = request.param
    network = replace(NETWORKS[name], height=SIZES[name], width=SIZES[name])
    module = network.untrained()
    graph = network.graph(module, name)
    calibration = qe.calibrate(
        graph, network.inputs(8), 1.0, positions=network.positions, progress=False
    )
    x = next(network.inputs(1, "test", seed=3))
    with torch.no_grad():
        expected = module(torch.from_numpy(x)).numpy()
    return Case(name, graph, serialize(graph, qe.fit(calibration)), x, expected)


def run(case: Case, scheme: str, **options: Any) -> tuple[Array, list[Any]]:
    session = qe.Session(case.data, scheme, **options)
    return session.run(case.x).reshape(case.expected.shape), session.explain()


def test_fp16_is_within_one_percent_of_torch(case: Case) -> None:
    y, _ = run(case, "fp16")
    assert sqnr(y, case.expected) > 40


def test_dynamic_int8_is_near(case: Case) -> None:
    y, _ = run(case, "dynamic")
    assert sqnr(y, case.expected) > 25


def test_dense_and_sparse_is_nearer(case: Case) -> None:
    for bits, gain in ((8, 0.5), (4, 2)):
        dense, sparse = (
            sqnr(run(case, "dynamic", activation_bits=bits, density=d)[0], case.expected)
            for d in (None, 0.01)
        )
        assert sparse > dense + gain


@pytest.mark.parametrize("scheme", ["static", "dynamic", "qpp"])
def test_all_convolutions_but_the_ends_read_int8(case: Case, scheme: str) -> None:
    _, steps = run(case, scheme, algorithm="direct")
    fp16 = {node.name for node in case.graph.nodes if node.fp16}
    assert len(fp16) == (0 if case.name == "espcn_x3" else 2)
    convolutions = [node.name for node in case.graph.nodes if node.op == "conv2d"]
    kernels = {step["node"]: step["kernel"] for step in steps if "conv" in step["op"]}
    assert list(kernels) == convolutions
    for name, kernel in kernels.items():
        source = "f16" if name in fp16 else "qai8"
        assert f"_{source}_{WEIGHTS[source]}" in kernel, name


def test_predictors_stand_where_the_paper_has_them(case: Case) -> None:
    positions = qe.calibrate(
        case.graph, [case.x] * 2, positions=NETWORKS[case.name].positions, progress=False
    ).plan.positions
    expected = {
        "hrnet_w18_cityscapes": [
            "conv1",
            "layer1.3.conv3",
            "stage2.0.fuse_layers.1.0.0.0",
            "stage3.3.fuse_layers.2.1.0.0",
        ],
        "espcn_x3": ["x"],
    }
    assert [p.value for p in positions] == expected.get(case.name, ["conv1"])
    if case.name == "hrnet_w18_cityscapes":  # before every new branch
        readers = {node.name: node.inputs[0] for node in case.graph.nodes}
        branches = ("transition1.1.0.0", "transition2.2.0.0", "transition3.3.0.0")
        assert [readers[name] for name in branches] == [p.value for p in positions[1:]]
