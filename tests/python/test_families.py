# SPDX-License-Identifier: Apache-2.0
"""Whole families of networks, from PyTorch to the engine in every scheme."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import qppengine as qe
from qppengine import Session, from_torch, reference
from qppengine.metrics import sqnr
from qppengine.model_file import serialize

pytest.importorskip("safetensors")
pytest.importorskip("sklearn")
torch = pytest.importorskip("torch")

import families  # noqa: E402

if TYPE_CHECKING:
    from qppengine.ir import Array

SIZE = 64


def images(count: int) -> list[Array]:
    """Smooth noise of varied contrast, exact in fp16."""
    rng = np.random.default_rng(12)
    samples = []
    for _ in range(count):
        coarse = rng.normal(0, np.exp(rng.normal(0, 0.3)), (1, 3, SIZE // 4, SIZE // 4))
        image = np.kron(coarse, np.ones((4, 4))) + rng.normal(0, 0.3, (1, 3, SIZE, SIZE))
        samples.append(image.astype(np.float16).astype(np.float32))
    return samples


def outputs_of(module: Any, x: Array) -> list[Array]:
    with torch.no_grad():
        y = module(torch.from_numpy(x))
    return [item.numpy() for item in (y if isinstance(y, tuple) else (y,))]


def run(session: Session, x: Array) -> list[Array]:
    y = session.run(x)
    return list(y) if isinstance(y, tuple) else [y]


@pytest.fixture(params=families.FAMILIES, scope="module")
def family(request: pytest.FixtureRequest) -> tuple[Any, qe.Graph, list[Array]]:
    module = families.network(request.param)
    samples = images(10)
    return module, from_torch(module, samples[0], dynamic_shapes={}), samples


def test_families_in_fp16_match_pytorch(family: Any) -> None:
    module, graph, samples = family
    session = Session(serialize(graph), "fp16")
    expected = outputs_of(module, samples[0])
    for y, z, e in zip(
        run(session, samples[0]), reference.run(graph, samples[0]), expected, strict=True
    ):
        np.testing.assert_allclose(z.reshape(e.shape), e, rtol=1e-3, atol=1e-3)
        error = np.sqrt(np.mean((y.reshape(e.shape) - e) ** 2) / np.mean(e**2))
        assert error < 1e-2


def test_families_run_in_every_scheme(family: Any) -> None:
    module, graph, samples = family
    data = serialize(graph, qe.fit(qe.calibrate(graph, samples, 0.9999, progress=False)))
    expected = outputs_of(module, samples[0])
    for scheme, least in (("static", 15), ("dynamic", 20), ("qpp", 15)):
        bounds = "range" if scheme == "static" else None
        session = Session(data, scheme, static_bounds=bounds)
        for y, e in zip(run(session, samples[0]), expected, strict=True):
            assert sqnr(y.reshape(e.shape), e) > least, scheme
        convolutions = [step for step in session.explain() if step["op"] == "conv2d"]
        assert all("qai8" in step["kernel"] for step in convolutions)


def test_families_take_any_size() -> None:
    module = families.network("MobileNetV2")
    x = images(1)[0]
    graph = from_torch(module, x)
    assert graph.shapes["x"] == (1, 3, None, None)
    wide = np.ascontiguousarray(x[..., 8:40, :])
    expected = outputs_of(module, wide)[0]
    y = Session(serialize(graph), "fp16").run(wide).reshape(expected.shape)
    assert np.sqrt(np.mean((y - expected) ** 2) / np.mean(expected**2)) < 1e-2
