# SPDX-License-Identifier: Apache-2.0
"""What holds for any network: random ones of all operations."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import qppengine as qe
from qppengine.operations import OPERATIONS
from qppengine.serialize import serialize
from qppengine.session import Session
from random_graphs import HEIGHT, WIDTH, random_graph

if TYPE_CHECKING:
    from qppengine.graph import Array

pytest.importorskip("safetensors")
pytest.importorskip("sklearn")

GRAPHS = 24
DENSITIES = (0.01, 0.1)
QUANTIZED = ("static", "dynamic", "qpp")


def draw(graph: qe.Graph, rng: np.random.Generator, gain: float = 1) -> tuple[Array, ...]:
    """One sample of every input, exact in fp16."""
    return tuple(
        (gain * rng.normal(0, 1, (1, value.shape[1] or 1, HEIGHT, WIDTH)))
        .astype(np.float16)
        .astype(np.float32)
        for value in graph.inputs
    )


def run(session: Session, inputs: tuple[Array, ...]) -> tuple[Array, ...]:
    outputs = session.run(*inputs)
    return outputs if isinstance(outputs, tuple) else (outputs,)


def test_random_networks_have_all_operations() -> None:
    found = {node.op for seed in range(200) for node in random_graph(seed).nodes}
    assert found == set(OPERATIONS)
    assert len({node.op for seed in range(GRAPHS) for node in random_graph(seed).nodes}) > 22


@pytest.mark.parametrize("seed", range(GRAPHS))
def test_samples_of_a_batch_give_what_they_give_alone(seed: int) -> None:
    """To the bit, in every scheme and density, with any bits and number of threads."""
    graph = random_graph(seed)
    rng = np.random.default_rng(1000 + seed)
    calibration = qe.calibrate(
        graph,
        [draw(graph, rng, gain) for gain in np.exp(rng.normal(0, 0.7, 8))],
        densities=DENSITIES,
        progress=False,
    )
    model = serialize(graph, calibration)
    samples = [draw(graph, rng, gain) for gain in (0.1, 3, 1)]
    batch = tuple(np.concatenate(arrays) for arrays in zip(*samples, strict=True))
    configurations: list[dict[str, Any]] = [{"scheme": "fp16"}]
    for scheme, density in product(QUANTIZED, (None, *DENSITIES)):
        bits = int(rng.integers(4, 9))
        configurations.append({"scheme": scheme, "density": density, "activation_bits": bits})
    for options in configurations:
        options["algorithm"] = str(rng.choice(["auto", "direct"]))
        threads = int(rng.integers(1, 4))
        alone, session = Session(model, **options), Session(model, threads=threads, **options)
        whole = run(session, batch)
        for i, sample in enumerate(samples):
            for got, expected in zip(whole, run(alone, sample), strict=True):
                np.testing.assert_array_equal(got[i], expected[0], str((options, threads)))
            np.testing.assert_array_equal(session.qparams()[i], alone.qparams()[0])
            np.testing.assert_array_equal(session.features()[i], alone.features()[0])
