# SPDX-License-Identifier: Apache-2.0
"""Wall-clock times of the schemes: networks, and each of their int8 convolutions alone.

    make bench
    make test-bench          # every bench once, without times: does it run?
    .venv/bin/pytest bench -k "resnet18 and 3x3" --benchmark-json=costs.json

The schemes run the same model file on one thread, a group each per network and per convolution.
Weights are random, except for ESPCN. A convolution alone reads fp16 and quantizes it.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import qppengine as qe
import qppengine.models
from qppengine.session import is_emulated

if is_emulated():
    pytest.exit("timing is not available under emulation; run the bench on the machine itself", 1)

from qppengine.model_file import serialize
from qppengine.models.zoo import NETWORKS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pytest_benchmark.fixture import BenchmarkFixture
    from qppengine.ir import Array, Node

BENCHED = ("resnet18", "hrnet_w18_cityscapes", "espcn_x3")
SAMPLES = 8  # to calibrate on


@cache
def make_graph(network: str) -> qe.Graph:
    """The network, with the packaged weights if there are any."""
    packaged = Path(qppengine.models.__file__).parent / f"{network}.pt2"
    if packaged.exists():
        return qe.from_torch(packaged)
    return NETWORKS[network].graph(NETWORKS[network].untrained(), network)


@cache
def make_network(network: str) -> tuple[bytes, tuple[Array, ...]]:
    """A model file and its inputs."""
    positions = NETWORKS[network].positions
    model = make_model(make_graph(network), NETWORKS[network].inputs(SAMPLES), positions)
    return model, tuple(NETWORKS[network].inputs(1, "test"))


@cache
def make_layer(network: str, layer: str) -> tuple[bytes, tuple[Array, ...]]:
    """A model file of one convolution, named as in `layers`, and its inputs."""
    node = layers(network)[layer]
    sizes = [shapes(network)[source] for source in node.inputs]
    random = np.random.default_rng(1)

    def draw() -> tuple[Array, ...]:
        return tuple(random.standard_normal(size, np.float32) for size in sizes)

    inputs = tuple(map(qe.InputInfo, node.inputs, sizes))
    alone = replace(make_graph(network), inputs=inputs, outputs=(node.output,), nodes=(node,))
    return make_model(alone, (draw() for _ in range(SAMPLES))), draw()


def make_model(graph: qe.Graph, samples: Iterable[Any], positions: str = "first") -> bytes:
    """A calibrated model file."""
    calibration = qe.calibrate(graph, samples, 1.0, positions=positions, progress=False)
    return serialize(graph, qe.fit(calibration))


@cache
def shapes(network: str) -> dict[str, Any]:
    """Of every value, for the usual input."""
    size = NETWORKS[network]
    graph = make_graph(network)
    (x,) = graph.inputs
    return graph.infer_shapes({x.name: (1, size.channels, size.height, size.width)})


@cache
def layers(network: str) -> dict[str, Node]:
    """A convolution of each kind that reads int8, such as "3x3/2 56x56 64-128": a stride of two.

    "1x1 56x56 64-256 +" adds a second input to its sums, the residual of a block.
    """
    found: dict[str, Node] = {}
    for node in make_graph(network).nodes:
        if node.op == "conv2d" and not node.fp16:
            filters, _, *kernel = node.tensors["weight"].shape
            _, channels, height, width = shapes(network)[node.inputs[0]]
            stride = node.attributes["stride"][0]
            window = "x".join(map(str, kernel)) + (f"/{stride}" if stride > 1 else "")
            residual = " +" if len(node.inputs) > 1 else ""
            found.setdefault(f"{window} {height}x{width} {channels}-{filters}{residual}", node)
    return found


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Names the layers, which only the networks know."""
    if "layer" in metafunc.fixturenames:
        pairs = [(network, layer) for network in BENCHED for layer in layers(network)]
        metafunc.parametrize(("network", "layer"), pairs, ids=map(" ".join, pairs))


def run(benchmark: Any, scheme: str, model: bytes, inputs: tuple[Array, ...]) -> None:
    """Times a session with input and output."""
    session = qe.Session(model, scheme)
    benchmark.pedantic(session.run, inputs, rounds=10, warmup_rounds=1)


@pytest.mark.parametrize("network", BENCHED)
@pytest.mark.parametrize("scheme", qe.SCHEMES)
def test_network(benchmark: BenchmarkFixture, network: str, scheme: str) -> None:
    """A whole network."""
    benchmark.group = network
    run(benchmark, scheme, *make_network(network))


@pytest.mark.parametrize("scheme", qe.SCHEMES)
def test_layer(benchmark: BenchmarkFixture, network: str, layer: str, scheme: str) -> None:
    """A convolution alone."""
    benchmark.group = f"{network} {layer}"
    run(benchmark, scheme, *make_layer(network, layer))
