# SPDX-License-Identifier: Apache-2.0
"""A small network with all features, and its results at every stage."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import qppengine as qe

if TYPE_CHECKING:
    from pathlib import Path

    from qppengine.ir import Array


@pytest.fixture(scope="session")
def graph() -> qe.Graph:
    """Three convolutions with tanh, ReLU and a clamp, a stride, an upscaling, all sizes open."""
    rng = np.random.default_rng(1)

    def weight(*shape: int) -> Array:
        scale = np.sqrt(2 / np.prod(shape[1:]))
        return np.asarray(rng.normal(0, scale, shape), np.float32)

    net = qe.GraphBuilder("small")
    x = net.input("x", (None, 3, None, None))
    y = net.conv2d(x, weight(12, 3, 5, 5), weight(12, 1)[:, 0], padding=2, name="head")
    y = net.tanh(y, name="act")
    y = net.conv2d(y, weight(16, 12, 3, 3), stride=(2, 1), padding=1, name="body")
    y = net.relu(y)
    y = net.conv2d(y, weight(8, 16, 3, 3), weight(8, 1)[:, 0], padding=1, name="tail")
    y = net.clamp(y, -2, 2)
    net.output(net.pixel_shuffle(y, 2, name="shuffle"))
    return net.build()


@pytest.fixture(scope="session")
def samples() -> list[Array]:
    """Twenty images [1, 3, 20, 24] of varied exposure, exact in fp16."""
    rng = np.random.default_rng(2)
    images = []
    for _ in range(20):
        image = rng.random((1, 3, 20, 24)) * np.exp(rng.normal(0, 0.5)) + rng.normal(0, 0.05)
        images.append(image.astype(np.float16).astype(np.float32))
    return images


@pytest.fixture(scope="session")
def calibration(graph: qe.Graph, samples: list[Array]) -> qe.Calibration:
    pytest.importorskip("safetensors")
    return qe.calibrate(graph, samples, 0.999, progress=False)


@pytest.fixture(scope="session")
def model(
    graph: qe.Graph, calibration: qe.Calibration, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The small network as a calibrated file."""
    pytest.importorskip("sklearn")
    path = tmp_path_factory.mktemp("model") / "small.qpp"
    qe.save(path, graph, calibration)
    return path
