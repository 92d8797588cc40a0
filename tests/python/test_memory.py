# SPDX-License-Identifier: Apache-2.0
"""Activation memory of whole networks, of full size; weights and bounds are random."""

from __future__ import annotations

import resource

import numpy as np
import pytest
import qppengine as qe
from qppengine.model_file import serialize
from qppengine.passes import optimize
from qppengine.quantization import Calibration, Plan, Position

torch = pytest.importorskip("torch")
pytest.importorskip("sklearn")
pytest.importorskip("safetensors")


def invent_calibration(graph: qe.Graph) -> Calibration:
    """One position, the input; bounds and features are noise."""
    values = optimize(graph).quantized_values
    plan = Plan(0.9997, values, (Position("x", tuple(range(len(values)))),))
    rng = np.random.default_rng(0)
    bounds = np.sort(rng.normal(size=(8, len(values), 2)).astype(np.float32), axis=-1)
    return Calibration(plan, bounds, rng.random((8, 1, 5), np.float32))


@pytest.mark.parametrize(
    ("name", "shape", "most"),
    [
        # The first convolution: 224x224 pixels of 3 channels, held as 8, to 112x112 of 64.
        ("resnet18", (1, 3, 224, 224), 1.2 * (224 * 224 * 8 + 112 * 112 * 64)),
        # A sum in place at a quarter of the resolution: two values of 256 channels; their sources.
        ("hrnet_w18", (1, 3, 512, 1024), 2.3 * 128 * 256 * 256),
    ],
)
def test_arena_is_near_the_peak_of_what_is_alive(
    name: str, shape: tuple[int, int, int, int], most: float
) -> None:
    from qppengine.models import hrnet, resnet

    module = (resnet.resnet18 if name == "resnet18" else hrnet.hrnet_w18)()
    graph = qe.from_torch(module.eval(), torch.zeros(1, 3, 64, 64))
    model = serialize(graph, qe.fit(invent_calibration(graph)))
    for scheme, threads in (("static", 4), ("qpp", 1)):
        session = qe.Session(model, scheme, threads=threads)
        session.prepare(shape)
        memory = session.memory()
        assert memory["peak"] <= memory["arena"] <= 1.1 * memory["peak"]
        assert memory["peak"] < most


def test_a_prepared_network_takes_memory_when_it_runs() -> None:
    """A file of a kilobyte may ask for sizes that no device has: to look at it must cost little."""
    graph = qe.GraphBuilder("large")
    x = graph.input("x", (None, 3, None, 1 << 24))
    graph.output(graph.conv2d(x, np.ones((4, 3, 3, 3), np.float32), padding=1))
    session = qe.Session(serialize(graph.build()), "fp16")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    session.prepare((1, 3, 16, 1 << 24))
    assert session.memory()["arena"] > 4 << 30
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 512 << 10  # kilobytes
