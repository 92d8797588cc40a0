# SPDX-License-Identifier: Apache-2.0
"""Dense + sparse execution of whole networks: its accuracy and its errors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import qppengine as qe
from qppengine import reference
from qppengine.metrics import sqnr
from qppengine.model_file import load_graph, serialize
from qppengine.session import Session

if TYPE_CHECKING:
    from qppengine.ir import Array

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
def model(graph: qe.Graph, samples: list[Array]) -> bytes:
    return serialize(graph, qe.fit(qe.calibrate(graph, samples, progress=False), 0))


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("density", [0.01, 0.03, 0.1])
def test_outliers_count(
    graph: qe.Graph, model: bytes, samples: list[Array], scheme: str, density: float
) -> None:
    """At 4 bits, dense + sparse is nearer to fp16 than the best that int8 alone does."""
    x = samples[5]
    expected = Session(model, "fp16").run(x)
    standard = Session(model, scheme, activation_bits=4).run(x)
    sparse = Session(model, scheme, activation_bits=4, density=density).run(x)
    alone = serialize(graph, qe.fit(qe.calibrate(graph, samples, 1 - density, progress=False), 0))
    cut = Session(alone, scheme, activation_bits=4).run(x)
    if density == 0.01:
        assert sqnr(sparse, expected) > sqnr(standard, expected) + 1
    assert sqnr(sparse, expected) > sqnr(cut, expected) + 3


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_file_of_many_densities_runs_as_one_calibrated_for_each(
    graph: qe.Graph, model: bytes, samples: list[Array], scheme: str
) -> None:
    for density in (0.01, 0.03, 0.1):
        alone = serialize(
            graph,
            qe.fit(qe.calibrate(graph, samples, 1 - density, densities=(), progress=False), 0),
        )
        one, other = (
            Session(data, scheme, density=density, static_bounds="mean").run(samples[4])
            for data in (alone, model)
        )
        assert np.array_equal(one, other)


def test_8_bits_gain_as_well(model: bytes, samples: list[Array]) -> None:
    x = samples[5]
    expected = Session(model, "fp16").run(x)
    standard = Session(model, "static").run(x)
    sparse = Session(model, "static", density=0.01).run(x)
    assert sqnr(sparse, expected) > sqnr(standard, expected)


def test_threads_do_not_matter(model: bytes, samples: list[Array]) -> None:
    x = samples[5]
    one = Session(model, "qpp", density=0.01).run(x)
    three = Session(model, "qpp", density=0.01, threads=3).run(x)
    assert np.array_equal(one, three)


def test_bounds_widen_until_outliers_find_room(model: bytes, samples: list[Array]) -> None:
    """For one sample: the next one has the bounds of the scheme again."""
    session = Session(model, "static", density=0.01, residual_dtype="fp16")
    first = session.run(samples[5])
    bounds = session.qparams()
    large = session.run(samples[5] * 30)
    exact = Session(model, "fp16").run(samples[5] * 30)
    assert sqnr(large, exact) > 20
    assert session.qparams()[..., 1].max() > 2 * bounds[..., 1].max()
    assert set(session.stats()["dropped_outliers"].values()) == {0}
    assert any(session.stats()["widened_bounds"].values())
    assert np.array_equal(session.run(samples[5]), first)
    assert np.array_equal(session.qparams(), bounds)
    assert Session(model, "static").stats()["dropped_outliers"] == {}


def test_deprecated_names_of_statistics_warn(model: bytes) -> None:
    stats = Session(model, "static", density=0.01).stats()
    with pytest.deprecated_call(match="use dropped_outliers"):
        assert stats["cut_outliers"] == stats["dropped_outliers"]  # type: ignore[typeddict-item]
    with pytest.raises(KeyError, match="other"):
        stats["other"]  # type: ignore[typeddict-item]


def outlier_network(kind: str, rng: np.random.Generator) -> qe.Graph:
    """Two convolutions in a row, so that outliers are read, and written."""
    channels = 3 if kind == "few channels" else 16
    net = qe.GraphBuilder(kind)
    x = net.input("x", (1, channels, 12, 12))

    def weight(size: int) -> Array:
        drawn = rng.normal(size=(channels, channels, size, size)) / (3 * size * channels**0.5)
        return np.asarray(drawn, np.float32)

    if kind == "pointwise":
        x = net.conv2d(net.relu(net.conv2d(x, weight(1))), weight(1))
    elif kind == "strided":
        x = net.conv2d(
            net.relu(net.conv2d(x, weight(3), stride=2, padding=1)), weight(3), padding=1
        )
    elif kind == "sum":
        y = net.conv2d(net.conv2d(x, weight(3), padding=1), weight(3), padding=1)
        x = net.conv2d(net.relu(net.add(y, x)), weight(1))
    else:
        x = net.conv2d(net.conv2d(x, weight(3), padding=1), weight(3), padding=1)
        x = net.conv2d(x, weight(1))
    net.output(x)
    return net.build()


@pytest.mark.parametrize("magnitude", [2, 30, 3000, 60000])
@pytest.mark.parametrize("kind", ["pointwise", "strided", "signed", "few channels", "sum"])
def test_outliers_are_never_worse_kept_than_cut(kind: str, magnitude: int) -> None:
    """Whatever the density, scheme and algorithm: within 0.5 dB of the scheme without one."""
    rng = np.random.default_rng(3)
    graph = outlier_network(kind, rng)

    def sample() -> Array:
        x = rng.normal(size=(1, *graph.inputs[0].shape[1:])).astype(np.float32) * 0.3  # type: ignore[arg-type]
        x.reshape(-1)[rng.choice(x.size, 3, replace=False)] *= magnitude
        return x

    images = [sample() for _ in range(8)]
    data = serialize(
        graph, qe.fit(qe.calibrate(graph, images, 1.0, densities=(0.01, 0.1), progress=False))
    )
    x = sample()
    (exact,) = reference.run(graph, x)
    for algorithm in ("direct", "winograd"):
        for scheme in SCHEMES:
            for bits in (8, 4):
                options: Any = {"algorithm": algorithm, "activation_bits": bits}
                without = sqnr(Session(data, scheme, **options).run(x), exact)
                for density in (0.01, 0.1):
                    session = Session(data, scheme, density=density, **options)
                    got = sqnr(session.run(x), exact)
                    assert got >= without - 0.5, (options, scheme, density, got, without)
                    assert set(session.stats()["dropped_outliers"].values()) == {0}


def test_density_must_be_one_of_the_file(model: bytes) -> None:
    for scheme in ("static", "qpp"):
        with pytest.raises(qe.UnsupportedError, match=r"\(0\.01, 0\.03, 0\.1\), got 0\.02;"):
            Session(model, scheme, density=0.02)
    Session(model, "dynamic", density=0.02)  # measures the bounds it needs
    with pytest.raises(qe.UnsupportedError, match="density: expected a scheme that quantizes"):
        Session(model, "fp16", density=0.01)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_observed_values_have_their_outliers(
    model: bytes, samples: list[Array], scheme: str
) -> None:
    """Dense and sparse part together are within half a step of the value everywhere."""
    x = samples[5]
    for density in (0.01, 0.03):  # far from filling the room that rows have
        session = Session(model, scheme, density=density)
        stored = {one.value: one for one in session.observe(x) if one.stored.dtype == np.int8}
        first = stored["x"]  # the value itself is known
        assert first.residuals is not None
        assert first.residuals.shape == first.stored.shape
        edge = np.isin(first.stored, (-128, 127))
        assert not first.residuals[~edge].any()
        error = first.numbers - x.astype(np.float16)
        assert np.abs(error).max() <= 0.501 * first.scale
        for one in stored.values():
            assert one.density is not None
            assert 0 < one.density < 5 * density  # max pools concentrate them
    dense = Session(model, scheme).observe(x)
    assert all(one.density is None and one.residuals is None for one in dense)


def test_convolutions_of_one_group_stay_in_int8(model: bytes, samples: list[Array]) -> None:
    session = Session(model, "static", density=0.01, algorithm="direct")
    session.run(samples[0])
    kernels = {step["node"]: step["kernel"] for step in session.explain() if step["kernel"]}
    for name in ("one", "two", "strided", "last"):
        assert "_qai8_qsi8cx_" in kernels[name], kernels


def test_values_that_share_a_row_are_stored_with_a_copy_of_it(
    model: bytes, samples: list[Array]
) -> None:
    """So that each may be stored with other parameters while the other one is still read."""
    session = Session(model, "dynamic", density=0.03)
    stored = {one.value for one in session.observe(samples[5]) if one.stored.dtype == np.int8}
    copies = {step["node"] for step in session.explain() if step["op"] == "copy_qparams"}
    values = list(load_graph(model).quantized_values)
    assert copies
    assert copies == stored - set(values)
    assert session.qparams().shape == (1, len(values), 2)
    assert list(session.stats()["dropped_outliers"]) == values
