# SPDX-License-Identifier: Apache-2.0
"""Bounds that are fitted to the costs of rounding and clipping."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import qppengine as qe
from qppengine import Calibration, CalibrationError, Feature, Position, Session, reference
from qppengine.margin import MARGINS, fit_constant, fit_margins, mean_squared_clipping
from qppengine.metrics import sqnr
from qppengine.model_file import serialize
from qppengine.quantization import TAIL_DENSITIES, Plan

if TYPE_CHECKING:
    import numpy.typing as npt
    from qppengine.ir import Array

    Floats = npt.NDArray[np.float64]

pytest.importorskip("safetensors")
pytest.importorskip("sklearn")
pytest.importorskip("hypothesis")

from hypothesis import given, settings
from hypothesis import strategies as st

FEATURES = (Feature("max"), Feature("mean"))


def magnitudes(values: Floats) -> Floats:
    """The tails of samples ``[N, M]``, float64 ``[K, N, 2]``, without those below zero."""
    upper = np.quantile(values, 1 - np.array(TAIL_DENSITIES), axis=1, method="inverted_cdf")
    return np.stack([np.zeros_like(upper), upper], axis=-1)


def of_extremes(extremes: Floats, features: Floats) -> Calibration:
    """A calibration of one value: bounds ``[N, 2]``, and elements uniform between them."""
    bounds = np.asarray(extremes, np.float32)[:, None]
    shares = 1 - np.array(TAIL_DENSITIES, np.float32)[:, None, None, None]
    plan = Plan(1.0, ("a",), (Position("a", (0,), FEATURES),))
    return Calibration(plan, bounds, np.asarray(features, np.float32)[:, None], (), bounds * shares)


@pytest.mark.parametrize("power", [1, 2, 4])
def test_clipping_costs_what_it_does(power: int) -> None:
    """Within a fifth, for flat and for heavy tails."""
    values = np.random.default_rng(1).exponential(1, (3, 200_000)) ** power
    for share in (0.5, 0.8, 0.95):
        bounds = share * magnitudes(values)[0]
        exact = (np.maximum(values - bounds[:, 1:], 0) ** 2).mean(axis=1)
        for bound in (bounds, bounds[None]):
            estimate = mean_squared_clipping(magnitudes(values), bound).reshape(-1, 2)[:, 1]
            np.testing.assert_allclose(estimate, exact, rtol=0.2, atol=1e-5 * values.max() ** 2)


def test_clipping_of_what_the_engine_measures(graph: qe.Graph, samples: list[Array]) -> None:
    """The costs of clipping a value, from its tails and from its elements."""
    measured = qe.calibrate(graph, samples[:1], progress=False)
    tails = np.maximum(measured.tails[:, :, 2] * np.array([-1.0, 1]), 0)
    values = reference.run_all(graph, samples[0])["relu"]
    bounds = 0.6 * tails[0]
    exact = (np.maximum(values - bounds[0, 1], 0) ** 2).mean()
    assert mean_squared_clipping(tails, bounds)[0, 1] == pytest.approx(exact, rel=0.25)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 8), st.floats(-3, 3))
def test_margins_stay_in_their_interval(seed: int, bits: int, error: float) -> None:
    rng = np.random.default_rng(seed)
    tails = magnitudes(rng.exponential(1, (5, 1000)))
    margins = fit_margins(tails, tails[0] * np.exp(error), np.ones(5), bits)
    assert ((margins >= MARGINS[0]) & (margins <= MARGINS[-1])).all()
    assert MARGINS[[0, -1]] == pytest.approx(np.exp([-0.6, 1.5]))


def test_fewer_bits_have_narrower_bounds() -> None:
    tails = magnitudes(np.random.default_rng(2).exponential(1, (8, 10_000)))
    constants = [fit_constant(tails, np.ones(8), bits)[1] for bits in (2, 4, 6, 8)]
    assert constants == sorted(constants)
    assert constants[0] < constants[-1]
    assert constants[-1] <= tails[0].max()


def test_bounds_that_follow_a_feature_are_found() -> None:
    """A power of a feature: a line in logarithms, whose coefficients come out."""
    rng = np.random.default_rng(3)
    gain = np.exp2(rng.uniform(-2, 2, 60))
    extremes = np.stack([-(gain**2), 3 * gain**0.5], axis=-1)
    data = of_extremes(extremes, np.stack([gain, rng.uniform(1, 2, 60)], axis=-1))
    fitted = qe.fit(data)
    (predictor,) = fitted.predictors
    np.testing.assert_allclose(predictor.weight, np.array([[2, 0], [0.5, 0]]), atol=1e-3)
    assert (predictor.relative_mse < 1e-6).all()
    assert predictor.position.features == (
        Feature("max", transform="log"),
        Feature("mean", transform="log"),
    )
    assert fitted.plan.positions == (predictor.position,)
    logarithms = np.log2(data.features[:, 0])
    predicted = predictor.predict(logarithms, fitted.sets[0].calibrated_range)[:, 0]
    # Exact predictions need almost no margin: the tail is flat.
    np.testing.assert_allclose(predicted, extremes, rtol=0.1)


def test_features_near_zero_keep_their_sign() -> None:
    rng = np.random.default_rng(4)
    features = np.stack([rng.uniform(1, 2, 40), rng.normal(0, 1, 40)], axis=-1)
    (predictor,) = qe.fit(of_extremes(rng.uniform([-2, 1], [-1, 2], (40, 2)), features)).predictors
    assert [feature.transform for feature in predictor.position.features] == ["log", "identity"]


def test_equal_samples_have_exact_bounds() -> None:
    data = of_extremes(np.tile([[0, 1.5]], (30, 1)), np.ones((30, 2)))
    with pytest.warns(UserWarning, match="expected samples that differ, got 30 with the same"):
        fitted = qe.fit(data)
    (predictor,) = fitted.predictors
    predicted = predictor.predict(np.zeros((1, 2), np.float32), fitted.sets[0].calibrated_range)
    np.testing.assert_allclose(predicted[0, 0], [0, 1.5], rtol=1e-6)


@pytest.mark.parametrize("count", [1, 19])
def test_few_samples_predict_their_range(count: int, graph: qe.Graph, samples: list[Array]) -> None:
    data = qe.calibrate(graph, samples[:count], progress=False)
    with pytest.warns(UserWarning, match=f"at least 20 samples to fit a margin, got {count}"):
        fitted = qe.fit(data)
    session = Session(serialize(graph, fitted), "qpp")
    session.run(samples[1])
    np.testing.assert_array_equal(session.qparams()[0], data.range_bounds)


def test_garbage_is_refused(graph: qe.Graph, samples: list[Array]) -> None:
    with pytest.raises(qe.NonFiniteError, match="sample 1"):
        qe.calibrate(graph, [samples[0], samples[0] * np.nan], progress=False)
    data = of_extremes(np.full((30, 2), np.nan), np.ones((30, 2)))
    with pytest.raises(CalibrationError, match="calibrate again on inputs without them"):
        qe.fit(data)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"margin": "wide"}, 'margin: expected a number from 0 to 10 or "fitted"'),
        ({"bits": 9}, "bits: expected a whole number from 2 to 8, got 9"),
        ({"target_transform": "identity"}, 'and "log" with a fitted margin'),
    ],
)
def test_other_arguments_are_refused(
    arguments: dict[str, object], problem: str, calibration: Calibration
) -> None:
    with pytest.raises(CalibrationError, match=re.escape(problem)):
        qe.fit(calibration, **arguments)  # type: ignore[arg-type]


def test_inputs_of_another_range_are_counted(graph: qe.Graph, model: bytes) -> None:
    """Pixels from 0 to 255 in place of 0 to 1: predictions end at the calibrated range."""
    session = Session(model, "qpp")
    session.run(np.full((1, 3, 20, 24), 255, np.float32))
    assert session.stats()["clamped_predictions"]["x"] == 1


def test_a_calibration_without_tails_is_fitted(
    graph: qe.Graph, calibration: Calibration, samples: list[Array]
) -> None:
    older = replace(calibration, tails=calibration.tails[:0])
    expected = Session(serialize(graph), "fp16").run(samples[0])
    assert sqnr(Session(serialize(graph, qe.fit(older)), "qpp").run(samples[0]), expected) > 20
