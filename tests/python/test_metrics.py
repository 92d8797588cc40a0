# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import numpy as np
import pytest
from qppengine import ShapeError
from qppengine.metrics import psnr, sqnr


def test_psnr_of_a_known_error() -> None:
    reference = np.zeros((1, 1, 4, 4), np.float32)
    assert psnr(reference + 0.1, reference) == pytest.approx(20)
    assert psnr(reference + 25.5, reference, peak=255) == pytest.approx(20)


def test_psnr_ignores_the_border() -> None:
    reference = np.zeros((1, 1, 6, 6))
    output = reference + 0.1
    output[..., 0, :] = output[..., :, -1] = 9
    assert psnr(output, reference, border=1) == pytest.approx(20)
    with pytest.raises(ShapeError, match="wider than twice 3"):
        psnr(output, reference, border=3)


def test_sqnr_is_relative_to_the_reference() -> None:
    reference = np.full((2, 3), 10.0)
    assert sqnr(reference + 1, reference) == pytest.approx(20)


def test_equal_outputs_are_infinitely_near() -> None:
    assert psnr([1, 2], [1, 2]) == sqnr([1, 2], [1, 2]) == math.inf


def test_noise_on_silence_is_infinitely_far() -> None:
    assert sqnr([1, 1], [0, 0]) == -math.inf


def test_shapes_must_agree() -> None:
    with pytest.raises(ShapeError, match=r"\[2, 1\] of the reference, got \[1, 2\]"):
        psnr(np.zeros((1, 2)), np.zeros((2, 1)))
