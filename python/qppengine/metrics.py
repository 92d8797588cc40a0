# SPDX-License-Identifier: Apache-2.0
"""The distance of outputs from a reference: labels, or outputs in FP32."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from qppengine.errors import DTypeError, ShapeError, expect_type

if TYPE_CHECKING:
    import numpy.typing as npt


def psnr(
    output: npt.ArrayLike, reference: npt.ArrayLike, *, peak: float = 1.0, border: int = 0
) -> float:
    """Peak signal-to-noise ratio in dB: 10 log10(peak^2 / mean squared error); inf when equal.

    ``border`` pixels are left out on every side of the last two axes, as is usual for
    super-resolution.
    """
    y, x = _pair(output, reference)
    expect_type("peak", peak, (int, float, np.floating), "a number")
    expect_type("border", border, (int, np.integer), "a number of pixels")
    if border:
        if min(x.shape[-2:]) <= 2 * border:
            raise ShapeError(f"expected images wider than twice {border}, got {list(x.shape)}")
        inner = (..., slice(border, -border), slice(border, -border))
        y, x = y[inner], x[inner]
    return _decibel(float(peak) ** 2, float(np.mean((y - x) ** 2)))


def sqnr(output: npt.ArrayLike, reference: npt.ArrayLike) -> float:
    """Signal-to-quantization-noise ratio in dB, the signal being ``reference``; inf when equal."""
    y, x = _pair(output, reference)
    return _decibel(float(np.mean(x**2)), float(np.mean((y - x) ** 2)))


def _pair(output: npt.ArrayLike, reference: npt.ArrayLike) -> tuple[Any, Any]:
    try:
        y, x = np.asarray(output, np.float64), np.asarray(reference, np.float64)
    except (TypeError, ValueError) as error:
        raise DTypeError(f"expected two arrays of numbers: {error}") from error
    if y.shape != x.shape:
        raise ShapeError(
            f"expected the shape {list(x.shape)} of the reference, got {list(y.shape)}"
        )
    return y, x


def _decibel(signal: float, noise: float) -> float:
    with np.errstate(divide="ignore"):
        return float(10 * (np.log10(signal) - np.log10(noise))) if noise else float("inf")
