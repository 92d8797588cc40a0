# SPDX-License-Identifier: Apache-2.0
"""Fits the regressors that predict quantization parameters from features of a sample."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from qppengine.errors import CalibrationError

if TYPE_CHECKING:
    import numpy.typing as npt

    from qppengine.calibrate import Calibration, Position
    from qppengine.graph import Array


LARGEST_HEADROOM = 10


@dataclass(frozen=True, eq=False)
class Predictor:
    """The linear regressor of one position: bounds = weight @ features + bias.

    ``weight`` ``[2R, 5]`` and ``bias`` ``[2R]``, float32; row 2i is lo of the i-th value served,
    2i + 1 its hi. ``relative_mse`` ``[2R]`` is the mean squared error on the calibration set,
    without headroom, relative to that of the static average: 0 is exact, 1 no better than static.
    """

    position: Position
    weight: Array
    bias: Array
    relative_mse: npt.NDArray[np.float64]

    def predict(self, features: Array, seen: Array) -> Array:
        """Bounds ``[N, R, 2]`` from features ``[N, 5]``, cut to what calibration has seen.

        Bounds that hold zero only are the widest that calibration has seen instead. ``seen`` is
        `Calibration.seen`.
        """
        bounds = (features @ self.weight.T + self.bias).reshape(len(features), -1, 2)
        limits = seen[list(self.position.rows)]
        bounds = np.clip(bounds, limits[:, [0, 2]], limits[:, [1, 3]])
        empty = (bounds[..., :1] >= 0) & (bounds[..., 1:] <= 0)
        return np.asarray(np.where(empty, limits[:, [0, 3]], bounds))


def fit(calibration: Calibration, headroom: float = 0) -> tuple[Predictor, ...]:
    """One predictor for every position, by ordinary least squares.

    Its bounds are moved outwards by `headroom` times the standard deviation of their error on the
    calibration set.

    Raises `CalibrationError` when there are not more samples than features.
    """
    if not 0 <= headroom <= LARGEST_HEADROOM:
        raise CalibrationError(
            f"headroom: expected a number from 0 to {LARGEST_HEADROOM}, got {headroom}"
        )
    samples, _, features = calibration.features.shape
    if samples <= features:
        raise CalibrationError(
            f"expected at least {features + 1} samples to fit {features} features, got {samples}"
        )
    return tuple(
        _fit_position(
            position,
            calibration.features[:, index].astype(np.float64),
            calibration.bounds[:, list(position.rows)].reshape(samples, -1).astype(np.float64),
            headroom,
        )
        for index, position in enumerate(calibration.plan.positions)
    )


def _fit_position(
    position: Position,
    features: npt.NDArray[np.float64],
    bounds: npt.NDArray[np.float64],
    headroom: float,
) -> Predictor:
    """Least squares from features ``[N, 5]`` to bounds ``[N, 2R]``."""
    from sklearn.linear_model import LinearRegression

    model = LinearRegression().fit(features, bounds)
    weight, bias = np.atleast_2d(model.coef_), np.atleast_1d(model.intercept_)
    variance = bounds.var(axis=0)
    # A bound that never changes, such as 0 after a ReLU, is kept to the last bit.
    constant = variance == 0
    weight[constant], bias[constant] = 0, bounds[0, constant]
    error = ((features @ weight.T + bias - bounds) ** 2).mean(axis=0)
    relative = np.divide(error, variance, out=np.zeros_like(error), where=~constant)
    outwards = np.where(np.arange(len(bias)) % 2, 1, -1)  # of lo, hi, lo, hi, ...
    bias = bias + headroom * np.sqrt(error) * outwards
    return Predictor(position, weight.astype(np.float32), bias.astype(np.float32), relative)
