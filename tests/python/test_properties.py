# SPDX-License-Identifier: Apache-2.0
"""What holds for any network: random ones of all operations."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import qppengine as qe
from qppengine import reference
from qppengine.metrics import sqnr
from qppengine.model_file import serialize
from qppengine.operations import OPERATIONS
from qppengine.session import Session
from random_graphs import HEIGHT, WIDTH, random_graph

if TYPE_CHECKING:
    from qppengine.ir import Array

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
    found = {node.op for seed in range(800) for node in random_graph(seed).nodes}
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
    model = serialize(graph, qe.fit(calibration))
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


PEAK = 8.0  # of the outliers, so that no value leaves fp16


def with_outliers(
    graph: qe.Graph, rng: np.random.Generator, samples: int, ratio: float
) -> tuple[Array, ...]:
    """Inputs of which few elements are up to `ratio` times as large as all others."""
    arrays = []
    for value in graph.inputs:
        shape = (samples, value.shape[1] or 1, HEIGHT, WIDTH)
        small = rng.uniform(-1, 1, shape) * PEAK / ratio
        large = rng.uniform(0.3, 1, shape) * PEAK * rng.choice([-1, 1], shape)
        x = np.where(rng.random(shape) < 0.004, large, small)
        arrays.append(x.astype(np.float16).astype(np.float32))
    return tuple(arrays)


# Two of them, 25 and 81, store several values that share a row of the QP table.
OUTLIER_GRAPHS = (*range(GRAPHS // 2), 25, 81)


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("ratio", [2, 30, 1000, 60000])
def test_outliers_are_never_worse_than_without_a_density(ratio: float, bits: int) -> None:
    """By more than half a decibel in the first output of any network, scheme and density.

    Networks that make the same of all inputs are left out, since the noise of a few constants is a
    matter of chance. So are differences of noise that stays within 6 dB of that of fp16.
    """
    compared = 0
    for seed in OUTLIER_GRAPHS:
        graph = random_graph(seed)
        rng = np.random.default_rng(2000 + seed)
        calibration = qe.calibrate(
            graph, [with_outliers(graph, rng, 48, ratio)], densities=DENSITIES, progress=False
        )
        model = serialize(graph, qe.fit(calibration))
        inputs = with_outliers(graph, rng, 48, ratio)
        expected = reference.run(graph, *inputs)[0]
        if not np.ptp(expected, axis=0).any():
            continue
        compared += 1
        best = sqnr(run(Session(model, "fp16"), inputs)[0], expected)
        for scheme in QUANTIZED:
            plain, *sparse = (
                sqnr(
                    run(Session(model, scheme, density=density, activation_bits=bits), inputs)[0],
                    expected,
                )
                for density in (None, *DENSITIES)
            )
            assert min(sparse) >= min(plain, best - 6) - 0.5, (seed, scheme, plain, sparse)
    assert compared > len(OUTLIER_GRAPHS) // 2
