# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
from qppengine import Calibration, CalibrationError
from qppengine.quantization import Plan, Position
from qppengine.regression import fit

pytest.importorskip("sklearn")
RNG = np.random.default_rng(5)


def calibration(bounds: object, features: object) -> Calibration:
    plan = Plan(0.999, ("a", "b"), (Position("a", (0, 1)),))
    return Calibration(plan, np.asarray(bounds, np.float32), np.asarray(features, np.float32))


def exact(samples: int = 40) -> Calibration:
    """Bounds that are linear in the features; the lo of "a" is 0, as after a ReLU."""
    features = RNG.random((samples, 1, 5))
    weight = RNG.standard_normal((4, 5))
    weight[0] = 0
    bounds = features[:, 0] @ weight.T + [0, 2, -3, 5]
    return calibration(bounds.reshape(samples, 2, 2), features)


def test_linear_bounds_are_predicted_exactly() -> None:
    data = exact()
    (predictor,) = fit(data, 0).predictors
    predicted = predictor.predict(data.features[:, 0], data.calibrated_range)
    np.testing.assert_allclose(predicted, data.bounds, atol=1e-5)
    assert predictor.relative_mse.max() < 1e-9


def test_constant_bounds_stay_to_the_last_bit() -> None:
    data = exact()
    data.bounds[:, 1, 1] = np.float32(0.1)
    (predictor,) = fit(data, 0).predictors
    assert not predictor.weight[[0, 3]].any()
    assert predictor.bias[[0, 3]].tolist() == [0, np.float32(0.1)]
    assert predictor.relative_mse[[0, 3]].tolist() == [0, 0]


def test_error_is_relative_to_the_static_average() -> None:
    noise = RNG.standard_normal((300, 2, 2))
    (predictor,) = fit(calibration(noise, RNG.random((300, 1, 5))), 0).predictors
    assert (predictor.relative_mse > 0.9).all()  # nothing to learn
    assert (predictor.relative_mse <= 1).all()


def test_margin_moves_bounds_outwards_by_their_error() -> None:
    data = calibration(RNG.standard_normal((300, 2, 2)), RNG.random((300, 1, 5)))
    data.bounds[:, 1, 0] = 0
    (plain,), (wide,) = fit(data, 0).predictors, fit(data, 2).predictors
    error = np.sqrt(plain.relative_mse * data.bounds.reshape(300, 4).var(axis=0))
    np.testing.assert_allclose(wide.bias - plain.bias, 2 * error * [-1, 1, -1, 1], atol=1e-6)
    assert wide.bias[2] == 0  # which does not change
    assert (wide.weight == plain.weight).all()


@pytest.mark.parametrize("margin", [-1, 11, float("nan")])
def test_unusable_margin_is_refused(margin: float) -> None:
    with pytest.raises(CalibrationError, match="margin: expected a number from 0 to 10"):
        fit(exact(), margin)


def test_predictions_are_clamped_to_the_calibrated_range() -> None:
    data = exact()
    (predictor,) = fit(data, 0).predictors
    far = predictor.predict(data.features[:, 0] * 100, data.calibrated_range)
    lo, hi = data.bounds.min(axis=0), data.bounds.max(axis=0)
    assert (far >= lo).all()
    assert (far <= hi).all()
    assert (far == hi).any()


def test_collinear_features_give_moderate_weights() -> None:
    gain = RNG.lognormal(0, 0.5, (50, 1, 1))
    features = gain * [0.5, 0.8, 0.9, 0.4, 1]
    bounds = gain[..., None] * [[[-1, 2], [0, 3]]]
    (predictor,) = fit(calibration(bounds[:, 0], features), 0).predictors
    assert np.abs(predictor.weight).max() < 10
    assert predictor.relative_mse.max() < 1e-9


@pytest.mark.parametrize("samples", [1, 5])
def test_too_few_samples_are_refused(samples: int) -> None:
    with pytest.raises(CalibrationError, match=f"expected at least 6 samples .* got {samples}"):
        fit(exact(samples), 0)


def test_every_position_has_a_predictor_of_its_own() -> None:
    features = RNG.random((30, 2, 5))
    bounds = np.stack([features[:, 0, :2], 3 * features[:, 1, 2:4]], axis=1)
    plan = Plan(0.999, ("a", "b"), (Position("a", (0,)), Position("b", (1,))))
    data = Calibration(plan, bounds.astype(np.float32), features.astype(np.float32))
    first, second = fit(data, 0).predictors
    np.testing.assert_allclose(first.weight, np.eye(5)[:2], atol=1e-5)
    np.testing.assert_allclose(second.weight, 3 * np.eye(5)[2:4], atol=1e-5)
