# SPDX-License-Identifier: Apache-2.0
"""Affine quantization of values and symmetric quantization of weights, as the engine does it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from qppengine.ir import Array

# Of the step of a value that is zero everywhere.
_MAX_INVERSE = np.float32(2**40)


class QParams(NamedTuple):
    """Affine quantization of a value: x = scale * (q - zero_point), q an integer of `bits` bits."""

    scale: np.float32
    inverse_scale: np.float32
    zero_point: int
    bits: int

    @classmethod
    def from_bounds(cls, lo: float, hi: float, bits: int) -> QParams:
        """The parameters for clipping bounds, extended to include zero: zero padding is exact.

        The step is (hi - lo) / (2^bits - 1), enlarged until its inverse has no more significant
        bits than a half; zero_point places lo at the lowest integer.
        """
        low, high = np.float32(min(lo, 0.0)), np.float32(max(hi, 0.0))
        with np.errstate(divide="ignore"):
            inverse = min(np.float32(2**bits - 1) / (high - low), _MAX_INVERSE)
        inverse = (inverse.view(np.uint32) & np.uint32(0xFFFFE000)).view(np.float32)
        qmin = -(2 ** (bits - 1))
        zero_point = int(np.clip(np.rint(np.float32(qmin) - low * inverse), qmin, -qmin - 1))
        return cls(np.float32(1) / inverse, inverse, zero_point, bits)

    def quantize(self, x: Array) -> npt.NDArray[np.int8]:
        """Nearest integers, halves to even, clipped to the range of `bits`."""
        qmin = -(2 ** (self.bits - 1))
        q = np.rint(x * self.inverse_scale) + np.float32(self.zero_point)
        return np.asarray(np.clip(q, qmin, -qmin - 1), np.int8)

    def dequantize(self, q: npt.NDArray[np.int8]) -> Array:
        """The real numbers that the integers represent."""
        steps = q.astype(np.float32) - np.float32(self.zero_point)
        return np.asarray(self.scale * steps, np.float32)


def quantize_weight(
    weight: Array, scale: Array | None = None
) -> tuple[npt.NDArray[np.int8], Array]:
    """Symmetric int8 by output channel, ``[O, I, kH, kW]``, and scales ``[O]``.

    Those are max|w| / 127 unless they are given.
    """
    stored = weight.astype(np.float16).astype(np.float32)  # the model file holds fp16
    if scale is not None:
        return np.rint(stored / scale[:, None, None, None]).astype(np.int8), scale
    peak = np.abs(stored).max(axis=(1, 2, 3))
    scale = np.where(peak > 0, peak / np.float32(127), np.float32(1)).astype(np.float32)
    return np.rint(stored / scale[:, None, None, None]).astype(np.int8), scale
