# SPDX-License-Identifier: Apache-2.0
"""Batches: the result of a sample does not depend on the others, to the bit."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import qppengine as qe
from qppengine.model_file import serialize
from qppengine.session import Session

if TYPE_CHECKING:
    from qppengine.ir import Array

pytest.importorskip("safetensors")
pytest.importorskip("sklearn")

DENSITY = 0.03
CONFIGURATIONS: list[dict[str, Any]] = [
    {"scheme": "fp16"},
    *(
        {"scheme": s, "activation_bits": bits}
        for s in ("static", "dynamic", "qpp")
        for bits in (8, 4)
    ),
    *({"scheme": s, "density": DENSITY} for s in ("static", "dynamic", "qpp")),
    {"scheme": "qpp", "algorithm": "direct", "threads": 3},
    {"scheme": "dynamic", "residual_dtype": "int8", "threads": 2},
    {"scheme": "dynamic", "density": DENSITY, "threads": 3},
]


def _weight(rng: np.random.Generator, *shape: int) -> Array:
    return np.asarray(rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape), np.float32)


def _network(batch: int | None = None) -> qe.Graph:
    """Two inputs and outputs, and operations that move, join, reduce and sum their inputs."""
    rng = np.random.default_rng(3)
    net = qe.GraphBuilder("batches")
    x = net.input("x", (batch, 3, None, None))
    z = net.input("z", (batch, 8, None, None))
    y = net.conv2d(x, _weight(rng, 8, 3, 3, 3), padding=1, activation="relu", name="stem")
    y = net.add(y, net.conv2d(y, _weight(rng, 8, 8, 3, 3), padding=1, name="inner"), name="sum")
    gate = net.unary(net.global_avg_pool(y, name="pool"), "sigmoid", name="gate")
    y = net.mul(y, gate, name="gated")
    y = net.rearrange(net.concat(y, z, name="joined"), (4, 4, None, None), (1, 0, 2, 3))
    y = net.conv2d(y, _weight(rng, 8, 16, 3, 3), padding=1, name="tail")
    net.output(net.pixel_shuffle(y, 2, name="image"))
    net.output(net.argmax(y, name="classes"))
    return net.build()


def _sample(gain: float, seed: int) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    x = gain * rng.standard_t(5, (1, 3, 12, 10))
    return x.astype(np.float32), rng.random((1, 8, 12, 10), np.float32)


def _batch(samples: list[tuple[Array, Array]]) -> tuple[Array, Array]:
    first, second = zip(*samples, strict=True)
    return np.concatenate(first), np.concatenate(second)


SAMPLES = [_sample(gain, seed) for seed, gain in enumerate((0.05, 4.0, 0.5, 1.0, 0.1))]


@pytest.fixture(scope="module")
def graph() -> qe.Graph:
    return _network()


@pytest.fixture(scope="module")
def calibration_samples() -> list[tuple[Array, Array]]:
    gains = np.exp(np.random.default_rng(4).normal(-1, 1.3, 16))
    return [_sample(float(gain), 100 + seed) for seed, gain in enumerate(gains)]


@pytest.fixture(scope="module")
def calibration(graph: qe.Graph, calibration_samples: list[tuple[Array, Array]]) -> qe.Calibration:
    return qe.calibrate(graph, calibration_samples, 0.999, densities=(DENSITY,), progress=False)


@pytest.fixture(scope="module")
def model(graph: qe.Graph, calibration: qe.Calibration) -> bytes:
    return serialize(graph, qe.fit(calibration))


def _name(options: dict[str, Any]) -> str:
    return "-".join(str(value) for value in options.values())


@pytest.mark.parametrize("options", CONFIGURATIONS, ids=_name)
def test_samples_of_a_batch_give_what_they_give_alone(
    model: bytes, options: dict[str, Any]
) -> None:
    single, session = Session(model, **options), Session(model, **options)
    whole = session.run(*_batch(SAMPLES))
    bounds, features = session.qparams(), session.features()
    observed = session.observe(*_batch(SAMPLES))
    assert len(bounds) == len(features) == len(SAMPLES)
    for i, sample in enumerate(SAMPLES):
        for got, expected in zip(whole, single.run(*sample), strict=True):
            np.testing.assert_array_equal(got[i], expected[0])
        np.testing.assert_array_equal(bounds[i], single.qparams()[0])
        np.testing.assert_array_equal(features[i], single.features()[0])
        of_sample = [one for one in observed if one.sample == i]
        for got, expected in zip(of_sample, single.observe(*sample), strict=True):
            assert (got.node, got.value, got.op) == (expected.node, expected.value, expected.op)
            assert (got.scale, got.zero_point) == (expected.scale, expected.zero_point)
            np.testing.assert_array_equal(got.stored, expected.stored)
            np.testing.assert_array_equal(got.numbers, expected.numbers)
            if got.residuals is not None:
                assert expected.residuals is not None
                np.testing.assert_array_equal(got.residuals, expected.residuals)
    stats, counted = session.stats(), single.stats()
    assert (stats["runs"], stats["samples"]) == (2, 2 * len(SAMPLES))
    assert {**stats, "runs": 0} == {**counted, "runs": 0}
    assert stats["predictions"] == (bounds[..., 0].size * 2 if session.scheme == "qpp" else 0)


def test_outputs_are_written_to_given_arrays(model: bytes) -> None:
    session = Session(model, "qpp")
    expected = session.run(*_batch(SAMPLES))
    shapes = session.prepare((5, 3, 12, 10), (5, 8, 12, 10))
    assert shapes == {"image": (5, 2, 24, 20), "classes": (5, 1, 12, 10)}
    out = {name: np.full(shape, np.nan, np.float32) for name, shape in shapes.items()}
    session.run(*_batch(SAMPLES), out=out)
    for name, array in zip(session.outputs, expected, strict=True):
        np.testing.assert_array_equal(out[name], array)


def test_memory_and_plan_do_not_depend_on_the_batch(model: bytes) -> None:
    session = Session(model, "qpp")
    with_one, one = _prepared(session, 1)
    with_five, five = _prepared(session, 5)
    assert with_one == with_five
    for of_one, of_five in zip(one, five, strict=True):
        assert of_five["macs"] == 5 * of_one["macs"]
        assert of_five["bytes"] == 5 * of_one["bytes"]
        if of_one["shape"] is not None:
            assert of_five["shape"] == (5, *of_one["shape"][1:])


def _prepared(session: Session, batch: int) -> tuple[Any, list[Any]]:
    session.prepare((batch, 3, 12, 10), (batch, 8, 12, 10))
    return session.memory(), session.explain()


def test_a_profile_times_all_samples(model: bytes) -> None:
    session = Session(model, "qpp")
    profile = session.profile(*_batch(SAMPLES), runs=3)
    steps = session.explain()
    events = profile.trace()["traceEvents"]
    if not events:
        pytest.skip("timing is not available under emulation")
    assert len(events) == 3 * len(SAMPLES) * len(steps)
    assert [event["args"]["sample"] for event in events[:: len(steps)]] == [*range(5)] * 3
    assert sum(event["args"]["macs"] for event in events) == 3 * sum(s["macs"] for s in steps)
    total = sum(row["ms"] or 0 for row in profile.rows)
    by_run = np.reshape([event["dur"] for event in events], (3, -1)).sum(axis=1) / 1000
    assert by_run.min() / 2 < total < 2 * by_run.max()


def test_inputs_of_other_batch_sizes_are_refused(model: bytes) -> None:
    session = Session(model, "qpp")
    x, z = _batch(SAMPLES)
    message = "expected inputs of one batch size, got 5 of 'x' and 4 of 'z'"
    with pytest.raises(qe.ShapeError, match=message):
        session.run(x, z[:4])
    with pytest.raises(qe.ShapeError, match=message):
        session.prepare(x.shape, z[:4].shape)
    with pytest.raises(qe.ShapeError, match="is too large"):
        session.prepare((2**40, 3, 12, 10), (2**40, 8, 12, 10))


@pytest.mark.parametrize("scheme", ["static", "dynamic", "qpp"])
def test_the_sample_that_is_not_finite_is_named(model: bytes, scheme: str) -> None:
    session = Session(model, scheme)
    expected = session.run(*_batch(SAMPLES))
    x, z = _batch(SAMPLES)
    x[3, 1, 2, 3] = np.nan
    out = tuple(np.zeros_like(array) for array in expected)
    with pytest.raises(qe.NonFiniteError, match=r"^sample 3: input 'x'"):
        session.run(x, z, out=out)
    for array, whole in zip(out, expected, strict=True):
        np.testing.assert_array_equal(array[:3], whole[:3])
    assert len(session.qparams()) == 3
    with pytest.raises(qe.NonFiniteError, match=r"^input 'x'"):
        session.run(x[3:4], z[3:4])


def test_a_fixed_batch_is_run_sample_by_sample_too(
    calibration: qe.Calibration, model: bytes, calibration_samples: list[tuple[Array, Array]]
) -> None:
    fixed = _network(batch=5)
    batches = [_batch(calibration_samples[i : i + 5]) for i in range(0, 15, 5)]
    measured = qe.calibrate(fixed, batches, 0.999, densities=(DENSITY,), progress=False)
    np.testing.assert_array_equal(measured.bounds, calibration.bounds[:15])
    session = Session(serialize(fixed, qe.fit(calibration)), "qpp")
    whole = session.run(*_batch(SAMPLES))
    for got, expected in zip(whole, Session(model, "qpp").run(*_batch(SAMPLES)), strict=True):
        np.testing.assert_array_equal(got, expected)
    with pytest.raises(qe.ShapeError, match=r"expected shape \[5, 3, any, any\]"):
        session.run(*SAMPLES[0])


@pytest.mark.parametrize("executor", [None, ThreadPoolExecutor, ProcessPoolExecutor])
def test_calibration_does_not_depend_on_how_samples_are_batched(
    graph: qe.Graph,
    calibration: qe.Calibration,
    calibration_samples: list[tuple[Array, Array]],
    executor: Any,
) -> None:
    batches = [calibration_samples[:7], calibration_samples[7:8], calibration_samples[8:]]
    as_mappings = [dict(zip(("x", "z"), _batch(batch), strict=True)) for batch in batches]
    for samples in ([_batch(batch) for batch in batches], as_mappings):
        workers = None if executor is None else executor(2)
        measured = qe.calibrate(
            graph, samples, 0.999, densities=(DENSITY,), executor=workers, progress=False
        )
        if workers is not None:
            workers.shutdown()
        np.testing.assert_array_equal(measured.bounds, calibration.bounds)
        np.testing.assert_array_equal(measured.features, calibration.features)
        np.testing.assert_array_equal(measured.sparse_bounds, calibration.sparse_bounds)


def test_calibration_names_samples_by_their_index_in_the_set(
    graph: qe.Graph, calibration_samples: list[tuple[Array, Array]]
) -> None:
    whole = _batch(calibration_samples)
    x, z = (array.copy() for array in whole)
    x[2, 0, 0, 0] = np.inf
    with pytest.raises(qe.NonFiniteError, match=r"^sample 18: input 'x'"):
        qe.calibrate(graph, [whole, (x, z)], progress=False)
    with pytest.raises(qe.ShapeError, match=r"^sample 16: expected inputs of one batch size"):
        qe.calibrate(graph, [whole, (x, z[:5])], progress=False)
    with pytest.raises(qe.ShapeError, match=r"^sample 0: .* got shape \[3, 12, 10\]"):
        qe.calibrate(graph, [(x[0], z[0])], progress=False)
