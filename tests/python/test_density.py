# SPDX-License-Identifier: Apache-2.0
"""Dense + sparse execution of whole networks: what it gains, and what it refuses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import qppengine as qe
from qppengine.metrics import sqnr
from qppengine.session import Session

if TYPE_CHECKING:
    from pathlib import Path

    from qppengine.graph import Array

SCHEMES = ("static", "dynamic", "qpp")


def _network() -> qe.Graph:
    """Convolutions of all kinds, and every other reader of quantized values between them."""
    rng = np.random.default_rng(5)

    def weight(*shape: int) -> Array:
        return np.asarray(rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape), np.float32)

    net = qe.GraphBuilder("all kinds")
    x = net.input("x", (None, 8, None, None))
    stem = net.relu(net.conv2d(x, weight(24, 8, 3, 3), padding=1, name="stem"))
    pooled = net.max_pool2d(stem, 2)
    one = net.relu(net.conv2d(pooled, weight(24, 24, 3, 3), padding=1, name="one"))
    two = net.conv2d(one, weight(24, 24, 3, 3), padding=1, name="two")
    skip = net.relu(net.add(two, pooled, name="skip"))
    deep = net.relu(net.conv2d(skip, weight(24, 1, 3, 3), padding=1, groups=24, name="depthwise"))
    strided = net.relu(net.conv2d(deep, weight(40, 24, 1, 1), stride=2, name="strided"))
    large = net.resize(strided, scale=2, mode="bilinear")
    joined = net.concat(large, skip, name="joined")
    net.output(net.conv2d(joined, weight(8, 64, 3, 3), padding=1, name="last"))
    return net.build()


@pytest.fixture(scope="module")
def samples() -> list[Array]:
    """Images with the heavy tails that activations have."""
    rng = np.random.default_rng(6)
    return [
        (rng.standard_t(4, (1, 8, 32, 24)) * np.exp(rng.normal(0, 0.3))).astype(np.float32)
        for _ in range(12)
    ]


@pytest.fixture(scope="module")
def graph() -> qe.Graph:
    return _network()


@pytest.fixture(scope="module")
def models(graph: qe.Graph, samples: list[Array], tmp_path_factory: Any) -> dict[float, Path]:
    """Files calibrated with an alpha each."""
    folder = tmp_path_factory.mktemp("density")
    files = {}
    for alpha in (0.9997, 0.99, 0.97, 0.9):
        files[alpha] = folder / f"{alpha}.qpp"
        qe.save(files[alpha], graph, qe.calibrate(graph, samples, alpha, progress=False))
    return files


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("density", [0.01, 0.03, 0.1])
def test_outliers_count(
    models: dict[float, Path], samples: list[Array], scheme: str, density: float
) -> None:
    """At 4 bits, dense + sparse is nearer to fp16 than the best that int8 alone does."""
    x = samples[5]
    expected = Session(models[0.99], "fp16").run(x)
    standard = Session(models[0.9997], scheme, activation_bits=4).run(x)
    alpha = round(1 - density, 2)
    sparse = Session(models[alpha], scheme, activation_bits=4, density=density).run(x)
    cut = Session(models[alpha], scheme, activation_bits=4).run(x)
    if density == 0.01:
        assert sqnr(sparse, expected) > sqnr(standard, expected) + 1
    assert sqnr(sparse, expected) > sqnr(cut, expected) + 3


def test_8_bits_gain_as_well(models: dict[float, Path], samples: list[Array]) -> None:
    x = samples[5]
    expected = Session(models[0.99], "fp16").run(x)
    standard = Session(models[0.9997], "static").run(x)
    sparse = Session(models[0.99], "static", density=0.01).run(x)
    assert sqnr(sparse, expected) > sqnr(standard, expected)


def test_threads_do_not_matter(models: dict[float, Path], samples: list[Array]) -> None:
    x = samples[5]
    one = Session(models[0.99], "qpp", density=0.01).run(x)
    three = Session(models[0.99], "qpp", density=0.01, threads=3).run(x)
    assert np.array_equal(one, three)


def test_bounds_must_be_those_of_the_density(models: dict[float, Path]) -> None:
    for scheme in ("static", "qpp"):
        with pytest.raises(qe.UnsupportedError, match=r"needs bounds of alpha 0\.99, .* 0\.9997"):
            Session(models[0.9997], scheme, density=0.01)
    Session(models[0.9997], "dynamic", density=0.01)  # measures the bounds it needs
    with pytest.raises(qe.UnsupportedError, match="density: expected a scheme that quantizes"):
        Session(models[0.99], "fp16", density=0.01)


def test_convolutions_of_one_group_stay_in_int8(
    models: dict[float, Path], samples: list[Array]
) -> None:
    session = Session(models[0.99], "static", density=0.01)
    session.run(samples[0])
    kernels = {step["node"]: step["kernel"] for step in session.explain() if step["kernel"]}
    for name in ("one", "two", "strided", "last"):
        assert "_qai8_qsi8cx_" in kernels[name], kernels
