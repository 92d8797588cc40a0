# SPDX-License-Identifier: Apache-2.0
"""A few lit pixels on black: bounds that would cut all of them give way to the extremes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import qppengine as qe
from qppengine.metrics import sqnr
from qppengine.model_file import serialize
from qppengine.regression import fit
from qppengine.session import Session

if TYPE_CHECKING:
    from qppengine.ir import Array

pytest.importorskip("safetensors")
pytest.importorskip("sklearn")

SIZE = 64
DENSITY = 0.01


@pytest.fixture(scope="module")
def graph() -> qe.Graph:
    """Two convolutions whose inner value, after ReLU without a bias, is mostly zero as well."""
    rng = np.random.default_rng(0)
    net = qe.GraphBuilder("night")
    x = net.input("x", (None, 1, SIZE, SIZE))
    y = net.conv2d(
        x, rng.normal(size=(8, 1, 3, 3)).astype(np.float32), padding=1, activation="relu", name="a"
    )
    net.output(net.conv2d(y, rng.normal(size=(4, 8, 1, 1)).astype(np.float32), name="b"))
    return net.build()


def night(lit: int, seed: int, sign: float = 1) -> Array:
    rng = np.random.default_rng(seed)
    image = np.zeros((1, 1, SIZE, SIZE), np.float32)
    places = rng.choice(SIZE * SIZE, lit, replace=False)
    image.reshape(-1)[places] = sign * rng.uniform(0.5, 1, lit)
    return image


def nights(lit: int, count: int = 12) -> list[Array]:
    return [night(lit, seed) for seed in range(count)]


@pytest.mark.parametrize("lit", [1, 2, 8])
@pytest.mark.parametrize("density", [None, DENSITY])
@pytest.mark.parametrize("scheme", ["static", "dynamic", "qpp"])
def test_few_lit_pixels_are_kept(
    graph: qe.Graph, scheme: str, density: float | None, lit: int
) -> None:
    # The quantiles leave 40 pixels out, and 327 elements of the inner value.
    calibration = qe.calibrate(graph, nights(lit), 0.99, densities=(DENSITY,), progress=False)
    model = serialize(graph, qe.fit(calibration))
    x = night(lit, 5)
    expected = Session(model, "fp16").run(x)
    static_bounds = "range" if scheme == "static" else None
    session = Session(model, scheme, density=density, static_bounds=static_bounds)
    y = session.run(x)
    assert sqnr(y, expected) > 35
    widened = session.stats()["widened_bounds"]
    if scheme == "dynamic":
        assert widened == {"x": 1, "a": 1}
    else:
        assert not any(widened.values())  # calibration has measured bounds that hold something


def test_calibration_measures_bounds_that_hold_something(graph: qe.Graph) -> None:
    images = [night(2, 0), night(2, 1, sign=-1), night(0, 2)]
    calibration = qe.calibrate(graph, images, 0.999, densities=(DENSITY,), progress=False)
    for bounds in (calibration.bounds, *calibration.sparse_bounds):
        for image, (lo, hi) in zip(images, bounds[:, 0], strict=True):
            assert lo == image.astype(np.float16).min()
            assert hi == image.astype(np.float16).max()


def test_predictions_of_zero_width_are_the_widest_of_calibration(graph: qe.Graph) -> None:
    """A regressor of bright images alone gives negative bounds for dark ones."""
    images = [(gain * np.abs(night(4000, i))).astype(np.float32) for i, gain in enumerate(GAINS)]
    calibration = qe.calibrate(graph, [*images, night(0, 0)], 0.999, densities=(), progress=False)
    bounds = calibration.bounds.copy()
    bounds[..., 1] = np.maximum(bounds[..., 1] - 1, 0)  # as if an offset had been subtracted
    shifted = qe.Calibration(calibration.plan, bounds, calibration.features)
    session = Session(serialize(graph, qe.fit(shifted, 0)), "qpp")
    x = images[0] * np.float32(0.02)
    session.run(np.concatenate([x, images[3]]))
    (predictor,) = fit(shifted, 0).predictors
    predicted = predictor.predict(session.features()[:, 0], shifted.calibrated_range)
    np.testing.assert_allclose(session.qparams(), predicted, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(predicted[0], shifted.calibrated_range[:, [0, 3]])
    assert session.stats()["widened_bounds"] == {"x": 1, "a": 1}
    assert session.stats()["clamped_predictions"]["x"] == 1


GAINS = np.linspace(1, 4, 12)
