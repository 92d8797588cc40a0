# SPDX-License-Identifier: Apache-2.0
"""Fits the regressors that predict bounds from the features of a sample."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from qppengine.errors import CalibrationError, expect_type
from qppengine.margin import fit_constant, fit_margins, weigh_samples
from qppengine.quantization import (
    MIN_MAGNITUDE,
    TAIL_DENSITIES,
    TRANSFORMS,
    BoundSet,
    Calibration,
    Position,
    Predictor,
    Quantization,
    to_targets,
)

if TYPE_CHECKING:
    import numpy.typing as npt

    from qppengine.ir import Array

    Floats = npt.NDArray[np.float64]

MAX_MARGIN = 10
MIN_SAMPLES = 20  # to fit a margin; with fewer the range of all samples is the safer choice

_SIGNS = (-1, 1)  # of lo and hi
_PENALTIES = 10.0 ** np.arange(-6, 2.5, 0.5)  # of ridge regression, on standardized features
_MAX_RATIO = 1000  # of magnitudes whose logarithms are fitted
_TOLERANCE = np.exp(0.1)  # the factor by which a predicted bound may leave the calibrated range


def fit(
    calibration: Calibration,
    margin: float | Literal["fitted"] = "fitted",
    *,
    bits: int = 8,
    target_transform: str | None = None,
) -> Quantization:
    """Fits one predictor for every position and density, and constant bounds for static runs.

    Args:
        calibration: The statistics that `calibrate` measured.
        margin: "fitted" predicts the logarithms of extremes by ridge regression. It then scales
            every bound by the factor, 0.55 to 4.5, for which rounding and clipping cost least on
            samples that the regressor has not been fitted to. Bounds of densities, which clip
            nothing, have no margin. With fewer than 20 samples the predictors are the constant
            range of calibration, and a warning says so.
            A number is the method of the paper: ordinary least squares, with bounds moved outwards
            by this many standard deviations of their error on the calibration set, 0 to 10.
        bits: The ``activation_bits`` for which a margin and static bounds are fitted, 2 to 8. With
            fewer bits steps are wider, so that narrower bounds are better.
        target_transform: With a number as the margin, "identity" (the default) fits the bounds and
            "log" the logarithms of their magnitudes. A fitted margin needs "log".

    Warns if all samples have the same bounds. Raises `CalibrationError` for other arguments, for
    statistics that are not finite, and with a number as the margin when there are not more samples
    than features.
    """
    transform = _check(calibration, margin, bits, target_transform)
    if isinstance(margin, str):
        if len(calibration.bounds) < MIN_SAMPLES:
            return _constant(calibration)
        return _with_margins(calibration, bits)
    sets = (calibration, *calibration.by_density)
    fitted = _static_bounds(calibration, bits)
    return Quantization(
        calibration.plan,
        tuple(
            _least_squares(one, one.mean_bounds if index else fitted, float(margin), transform)
            for index, one in enumerate(sets)
        ),
    )


def _check(calibration: Calibration, margin: Any, bits: Any, target_transform: str | None) -> str:
    """Checks the arguments of `fit` and returns the transform of the targets."""
    expect_type("calibration", calibration, Calibration, "the result of calibrate")
    fitted = isinstance(margin, str) and margin == "fitted"
    if not (fitted or (isinstance(margin, (int, float, np.number)) and 0 <= margin <= MAX_MARGIN)):
        raise CalibrationError(
            f'margin: expected a number from 0 to {MAX_MARGIN} or "fitted", got {margin!r}'
        )
    if bits not in range(2, 9):
        raise CalibrationError(f"bits: expected a whole number from 2 to 8, got {bits!r}")
    transform = target_transform or ("log" if fitted else "identity")
    if transform not in TRANSFORMS or (fitted and transform != "log"):
        raise CalibrationError(
            'target_transform: expected "identity" or "log", and "log" with a fitted margin, got '
            f"{target_transform!r}"
        )
    count, features = len(calibration.bounds), calibration.plan.max_features
    if not fitted and count <= features:
        raise CalibrationError(
            f"expected at least {features + 1} samples to fit {features} features, got {count}"
        )
    measured = calibration.features[:, calibration.plan.is_feature]
    if not (np.isfinite(calibration.bounds).all() and np.isfinite(measured).all()):
        raise CalibrationError(
            "expected finite bounds and features, got NaN or infinity; calibrate again on inputs "
            "without them"
        )
    if fitted and count < MIN_SAMPLES:
        _warn(
            f"expected at least {MIN_SAMPLES} samples to fit a margin, got {count}: scheme "
            f'"qpp" uses the range of all samples for every input; calibrate on more samples'
        )
    elif calibration.bounds.size and not np.ptp(calibration.bounds, axis=0).any():
        _warn(
            f"expected samples that differ, got {count} with the same bounds of every value; "
            f"calibrate on inputs of varied exposure and contrast"
        )
    return transform


def _warn(message: str) -> None:
    warnings.warn(message, stacklevel=4)  # of the caller of `fit`


def _static_bounds(calibration: Calibration, bits: int) -> Array:
    """The constant bounds ``[V, 2]`` of least cost."""
    tails = _tails(calibration)
    weights = weigh_samples(tails)
    fitted = [fit_constant(tails[:, :, row], weights, bits) for row in range(tails.shape[2])]
    return np.asarray(np.reshape(fitted, (-1, 2)) * _SIGNS, np.float32)


def _tails(calibration: Calibration) -> Floats:
    """The magnitudes of the tails; without these, values are taken to end at their bounds."""
    tails = calibration.tails
    if not len(tails):
        tails = np.broadcast_to(
            calibration.bounds, (len(TAIL_DENSITIES), *calibration.bounds.shape)
        )
    return _magnitudes(tails)


def _magnitudes(bounds: npt.NDArray[np.float32]) -> Floats:
    return np.maximum(bounds.astype(np.float64) * _SIGNS, 0)


def _constant(calibration: Calibration) -> Quantization:
    """Predictors that predict the range for every input, or the mean where nothing is clipped."""

    def constant(one: Calibration, bounds: Array) -> BoundSet:
        predictors = []
        for position in one.plan.positions:
            bias = bounds[list(position.rows)].reshape(-1)
            weight = np.zeros((len(bias), len(position.features)), np.float32)
            predictors.append(Predictor(position, weight, bias, np.ones(len(bias))))
        return _bound_set(one, bounds, tuple(predictors))

    first = constant(calibration, calibration.range_bounds)
    others = (constant(one, one.mean_bounds) for one in calibration.by_density)
    return Quantization(calibration.plan, (first, *others))


def _with_margins(calibration: Calibration, bits: int) -> Quantization:
    """Predictors of logarithms, with a margin except for those of densities."""
    features = [
        calibration.features[:, index, : len(position.features)].astype(np.float64)
        for index, position in enumerate(calibration.plan.positions)
    ]
    positions = tuple(map(_take_logarithms, calibration.plan.positions, features))
    tails = _tails(calibration)
    low, high = tails[0].min(axis=0) / _TOLERANCE, tails[0].max(axis=0) * _TOLERANCE
    calibrated_range = np.stack([-high[:, 0], -low[:, 0], low[:, 1], high[:, 1]], axis=-1)
    weights = weigh_samples(tails)
    predictors = []
    for position, x in zip(positions, features, strict=True):
        rows = list(position.rows)
        model = _fit_logarithms(x, tails[0][:, rows])
        predicted = np.exp2(model.left_out).reshape(-1, len(rows), 2)
        predicted = np.clip(predicted, low[rows], high[rows])
        margins = [
            fit_margins(tails[:, :, row], predicted[:, i], weights, bits)
            for i, row in enumerate(rows)
        ]
        predictors.append(_predictor(position, model, np.log2(margins).reshape(-1)))
    first = replace(
        _bound_set(calibration, _static_bounds(calibration, bits), tuple(predictors)),
        calibrated_range=np.asarray(calibrated_range, np.float32),
    )
    others = (
        _bound_set(
            one,
            one.mean_bounds,
            tuple(
                _predictor(position, _fit_logarithms(x, _magnitudes(one.bounds[:, position.rows])))
                for position, x in zip(positions, features, strict=True)
            ),
        )
        for one in calibration.by_density
    )
    return Quantization(replace(calibration.plan, positions=positions), (first, *others))


def _take_logarithms(position: Position, features: Floats) -> Position:
    """The position with logarithms of its features, which replace ``features`` ``[N, F]``.

    Features that are near zero or negative for some samples stay as they are.
    """
    transformed = []
    for feature, x in zip(position.features, features.T, strict=True):
        magnitude = -x if feature.kind == "min" else x
        if feature.transform == "identity" and magnitude.min() > np.median(magnitude) / _MAX_RATIO:
            feature = replace(feature, transform="log")
            x[:] = np.log2(np.maximum(magnitude, MIN_MAGNITUDE))
        transformed.append(feature)
    return position._replace(features=tuple(transformed))


class _Model(NamedTuple):
    """Linear regressors of T targets."""

    weight: Floats  # [T, F]
    bias: Floats  # [T]
    left_out: Floats  # [N, T]: predictions for samples by models fitted to all others
    error: Floats  # [T]: mean squared, of these predictions, relative to the variance
    constant: npt.NDArray[np.bool_]  # [T]: targets that do not vary


def _fit_logarithms(features: Floats, magnitudes: Floats) -> _Model:
    """Ridge regression from ``[N, F]`` to the logarithms of ``[N, R, 2]``.

    The penalty of each target is the one with the least error on left-out samples.
    """
    magnitudes = magnitudes.reshape(len(magnitudes), -1)
    floor = np.maximum(magnitudes.max(axis=0) / _MAX_RATIO, MIN_MAGNITUDE)
    targets = np.log2(np.maximum(magnitudes, floor))
    constant = np.ptp(targets, axis=0) == 0
    mean, deviation = features.mean(axis=0), features.std(axis=0)
    scale = np.divide(1, deviation, out=np.zeros_like(deviation), where=deviation > 0)
    u, s, vt = np.linalg.svd((features - mean) * scale, full_matrices=False)
    center = targets.mean(axis=0)
    projected = u.T @ (targets - center)
    models = []
    for penalty in _PENALTIES:
        shrink = s / (s**2 + penalty)
        fitted = center + u @ ((s * shrink)[:, None] * projected)
        leverage = 1 / len(u) + u**2 @ (s * shrink)
        residual = (targets - fitted) / np.maximum(1 - leverage, 1e-9)[:, None]
        weight = (vt.T @ (shrink[:, None] * projected)).T * scale
        models.append((weight, targets - residual, (residual**2).mean(axis=0)))
    weights, left_out, errors = map(np.stack, zip(*models, strict=True))
    best, every = errors.argmin(axis=0), np.arange(targets.shape[1])
    weight = weights[best, every]
    weight[constant] = 0
    variance = targets.var(axis=0)
    return _Model(
        weight,
        np.where(constant, targets[0], center - weight @ mean),
        np.where(constant, targets[0], left_out[best, :, every].T),
        np.divide(errors[best, every], variance, out=np.zeros_like(variance), where=~constant),
        constant,
    )


def _predictor(position: Position, model: _Model, margin: Floats | float = 0) -> Predictor:
    """A predictor of logarithms; a constant bound, such as 0 after a ReLU, has no margin."""
    bias = model.bias + np.where(model.constant, 0, margin)
    return Predictor(
        position, model.weight.astype(np.float32), bias.astype(np.float32), model.error, "log"
    )


def _bound_set(
    calibration: Calibration, fitted: Array, predictors: tuple[Predictor, ...]
) -> BoundSet:
    return BoundSet(
        calibration.mean_bounds,
        calibration.range_bounds,
        fitted,
        calibration.calibrated_range,
        predictors,
    )


def _least_squares(
    calibration: Calibration, fitted: Array, margin: float, transform: str
) -> BoundSet:
    """The predictors of the paper."""
    return _bound_set(
        calibration,
        fitted,
        tuple(
            _fit_position(
                position,
                calibration.features[:, index, : len(position.features)].astype(np.float64),
                calibration.bounds[:, list(position.rows)].astype(np.float64),
                margin,
                transform,
            )
            for index, position in enumerate(calibration.plan.positions)
        ),
    )


def _fit_position(
    position: Position,
    features: npt.NDArray[np.float64],
    bounds: npt.NDArray[np.float64],
    margin: float,
    transform: str,
) -> Predictor:
    """Least squares from features ``[N, F]`` to bounds ``[N, R, 2]``."""
    from sklearn.linear_model import LinearRegression

    targets = to_targets(bounds, transform).reshape(len(bounds), -1)
    model = LinearRegression().fit(features, targets)
    weight, bias = np.atleast_2d(model.coef_), np.atleast_1d(model.intercept_)
    variance = targets.var(axis=0)
    # A bound that never changes, such as 0 after a ReLU, stays exact.
    constant = variance == 0
    weight[constant], bias[constant] = 0, targets[0, constant]
    error = ((features @ weight.T + bias - targets) ** 2).mean(axis=0)
    relative = np.divide(error, variance, out=np.zeros_like(error), where=~constant)
    # Of lo, hi, lo, hi, ...; a logarithm grows outwards on both sides.
    outwards = np.where((np.arange(len(bias)) % 2 == 1) | (transform == "log"), 1, -1)
    bias = bias + margin * np.sqrt(error) * outwards
    return Predictor(
        position, weight.astype(np.float32), bias.astype(np.float32), relative, transform
    )
