# SPDX-License-Identifier: Apache-2.0
"""Fits the regressors that predict bounds from the features of a sample."""

from __future__ import annotations

from numbers import Real
from typing import TYPE_CHECKING

import numpy as np

from qppengine.errors import CalibrationError, expect_type
from qppengine.quantization import (
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

MAX_MARGIN = 10


def fit(
    calibration: Calibration, margin: float = 0, *, target_transform: str = "identity"
) -> Quantization:
    """Fits one predictor for every position and density, by ordinary least squares.

    Args:
        calibration: The statistics that `calibrate` measured.
        margin: Predicted bounds are moved outwards by this many standard deviations of their error
            on the calibration set, 0 to 10. Bounds that are too narrow clip values, which at 8 bits
            costs more than wider steps do: use 1 to 2 where a linear regressor predicts the bounds
            of a network badly. 0 is plain least squares, as in the paper.
        target_transform: "identity" fits the bounds, "log" the logarithms of their magnitudes.

    Raises `CalibrationError` for other arguments, and when there are not more samples than
    features.
    """
    expect_type("calibration", calibration, Calibration, "the result of calibrate")
    if not isinstance(margin, Real) or not 0 <= margin <= MAX_MARGIN:
        raise CalibrationError(f"margin: expected a number from 0 to {MAX_MARGIN}, got {margin!r}")
    if target_transform not in TRANSFORMS:
        raise CalibrationError(
            f'target_transform: expected "identity" or "log", got {target_transform!r}'
        )
    samples, features = len(calibration.bounds), calibration.plan.max_features
    if samples <= features:
        raise CalibrationError(
            f"expected at least {features + 1} samples to fit {features} features, got {samples}"
        )
    sets = (calibration, *calibration.by_density)
    return Quantization(
        calibration.plan, tuple(_fit_set(one, margin, target_transform) for one in sets)
    )


def _fit_set(calibration: Calibration, margin: float, transform: str) -> BoundSet:
    return BoundSet(
        calibration.mean_bounds,
        calibration.range_bounds,
        calibration.calibrated_range,
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
