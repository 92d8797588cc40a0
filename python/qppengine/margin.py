# SPDX-License-Identifier: Apache-2.0
"""Chooses bounds by their cost: the squared errors of rounding and of clipping.

Bounds are pairs of magnitudes, -lo and hi. ``tails`` ``[K, N, 2]`` are those that `calibrate`
measures of one value of N samples for `TAIL_DENSITIES`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from qppengine.quantization import TAIL_DENSITIES

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

# Errors of rounding average out in the sums of the next layer, those of clipping add up.
CLIPPING_WEIGHT = 8
MARGINS = np.exp(np.linspace(-0.6, 1.5, 43))  # factors of predicted bounds
_SHRINKS = np.geomspace(1 / 16, 1, 43)  # factors of the largest extremes


def weigh_samples(tails: Floats) -> Floats:
    """The weights ``[N]`` of the costs of samples, from the tails ``[K, N, V, 2]`` of all values.

    A dark image has small values and needs small errors. Its scale is that of most of its values:
    one small value does not make the errors of that value important.
    """
    ranges = tails[0].sum(axis=-1)
    typical = np.median(ranges, axis=0)
    relative = ranges[:, typical > 0] / typical[typical > 0]
    scale: Floats = np.median(relative, axis=1) if relative.size else np.ones(len(ranges))
    weights: Floats = 1 / np.maximum(scale, 1e-3) ** 2
    return weights


def fit_margins(tails: Floats, predicted: Floats, weights: Floats, bits: int) -> Floats:
    """The factors of lo and hi for which bounds ``[N, 2]`` predicted of samples cost least."""
    return _best_factors(tails, predicted, MARGINS, weights, bits)


def fit_constant(tails: Floats, weights: Floats, bits: int) -> Floats:
    """The bounds ``[2]``, the same for all samples, that cost least."""
    largest: Floats = tails[0].max(axis=0)
    every = np.broadcast_to(largest, tails[0].shape)
    return largest * _best_factors(tails, every, _SHRINKS, weights, bits)


def mean_squared_clipping(tails: Floats, bounds: Floats) -> Floats:
    """The mean of max(magnitude - bound, 0)^2 on each side of a value, for bounds ``[..., N, 2]``.

    Elements are taken as uniformly distributed between the quantiles that were measured.
    """
    shares = np.diff([0, *TAIL_DENSITIES, 1])
    # A quantile of zero was moved outwards by calibration; its magnitude is at most the one before.
    inner = np.minimum.accumulate([*tails, np.zeros_like(tails[0])])
    outer = inner[[0, *range(len(tails))]]
    result = np.zeros(bounds.shape)
    for share, top, bottom in zip(shares, outer, inner, strict=True):
        most, least = np.maximum(top - bounds, 0), np.maximum(bottom - bounds, 0)
        width = np.broadcast_to(top - bottom, bounds.shape)
        clipped = np.divide(most - least, width, out=np.ones(bounds.shape), where=width > 0)
        result += share * clipped * (most**2 + most * least + least**2) / 3
    return result


def _best_factors(
    tails: Floats, bounds: Floats, factors: Floats, weights: Floats, bits: int
) -> Floats:
    """The factors of both sides of bounds ``[N, 2]`` with the least weighted mean of costs.

    The mean squared error of rounding is a twelfth of the squared step, (lo + hi) / levels.
    """
    clipping = np.stack([mean_squared_clipping(tails, factor * bounds) for factor in factors])
    lo, hi = np.moveaxis(CLIPPING_WEIGHT * np.tensordot(clipping, weights, (1, 0)), -1, 0)
    squares = (bounds * weights[:, None]).T @ bounds  # sums of lo lo, lo hi, hi hi over the samples
    rounding = (
        squares[0, 0] * factors[:, None] ** 2
        + 2 * squares[0, 1] * np.outer(factors, factors)
        + squares[1, 1] * factors**2
    ) / (12 * (2**bits - 1) ** 2)
    best = np.unravel_index(np.argmin(rounding + lo[:, None] + hi), rounding.shape)
    return factors[list(best)]
