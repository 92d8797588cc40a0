# SPDX-License-Identifier: Apache-2.0
"""Residual additions of int8 and of fp16 values, and their accuracy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import qppengine as qe
from qppengine.metrics import sqnr
from qppengine.model_file import serialize
from qppengine.session import Session

if TYPE_CHECKING:
    from qppengine.ir import Array

pytest.importorskip("safetensors")
pytest.importorskip("sklearn")

SCHEMES = ("static", "dynamic", "qpp")
BLOCKS = 4


def network(branch: float) -> qe.Graph:
    """A stem in fp16 and residual blocks, of which the last sums values of two resolutions.

    The weights before additions are scaled by `branch`.
    """
    rng = np.random.default_rng(7)

    def weight(*shape: int) -> Array:
        return np.asarray(rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape), np.float32)

    net = qe.GraphBuilder("residual")
    x = net.input("x", (None, 3, None, None))
    y = net.conv2d(x, weight(16, 3, 3, 3), padding=1, activation="relu", name="stem")
    y = net.max_pool2d(y, 2, name="pool")
    for i in range(BLOCKS):
        inner = net.conv2d(y, weight(16, 16, 3, 3), padding=1, activation="relu", name=f"in{i}")
        inner = net.conv2d(inner, branch * weight(16, 16, 3, 3), padding=1, name=f"out{i}")
        y = net.add(y, inner, activation="relu", name=f"sum{i}")
    low = net.conv2d(y, branch * weight(16, 16, 3, 3), stride=2, padding=1, name="low")
    low = net.resize(low, scale=2, mode="bilinear", name="resized")
    y = net.sub(y, low, name="difference")
    net.output(net.conv2d(y, weight(8, 16, 3, 3), padding=1, name="tail"))
    return qe.keep_fp16(net.build(), skip_first=True)


@pytest.fixture(scope="module")
def samples() -> list[Array]:
    rng = np.random.default_rng(8)
    return [rng.random((1, 3, 32, 24), np.float32) for _ in range(12)]


@pytest.fixture(scope="module")
def model(samples: list[Array]) -> bytes:
    graph = network(0.5)
    return serialize(graph, qe.fit(qe.calibrate(graph, samples, 1.0, progress=False)))


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("bits", [8, 4])
def test_sums_of_unquantized_values_are_nearer(
    model: bytes, samples: list[Array], scheme: str, bits: int
) -> None:
    x = samples[3]
    expected = Session(model, "fp16").run(x)
    int8, fp16 = (
        Session(model, scheme, residual_dtype=dtype, activation_bits=bits).run(x)
        for dtype in ("int8", "fp16")
    )
    assert sqnr(fp16, expected) > sqnr(int8, expected) + 1


@pytest.mark.parametrize("scheme", SCHEMES)
def test_what_sums_read_was_never_quantized(samples: list[Array], scheme: str) -> None:
    """Where branches give nothing, the sums are those of scheme fp16 to the bit."""
    graph = network(0)
    data = serialize(graph, qe.fit(qe.calibrate(graph, samples, 1.0, progress=False)))

    def sums(session: Session) -> dict[str, Array]:
        stored = session.observe(samples[0])
        return {one.value: one.numbers for one in stored if one.stored.dtype == np.float16}

    expected = sums(Session(data, "fp16"))
    got = sums(Session(data, scheme, residual_dtype="fp16"))
    for name in [f"out{i}" for i in range(BLOCKS)] + ["difference"]:
        np.testing.assert_array_equal(got[name], expected[name])


@pytest.mark.parametrize("scheme", SCHEMES)
def test_convolutions_read_int8_all_the_same(
    model: bytes, samples: list[Array], scheme: str
) -> None:
    session = Session(model, scheme, residual_dtype="fp16", algorithm="direct")
    session.run(samples[0])
    kernels = [step["kernel"] for step in session.explain() if step["op"].startswith("conv")]
    assert len(kernels) == 2 * BLOCKS + 3
    for kernel in kernels[1:]:  # after the stem
        assert "_qai8_qsi8cx_" in kernel
    stored = {(one.value, one.stored.dtype.name) for one in session.observe(samples[0])}
    assert ("pool", "int8") in stored
    assert ("low", "int8") not in stored  # nobody reads it


def test_dynamic_quantization_adds_in_fp16_by_itself(model: bytes, samples: list[Array]) -> None:
    for scheme, dtype in (("static", "int8"), ("dynamic", "fp16"), ("qpp", "int8")):
        named = Session(model, scheme, residual_dtype=dtype).run(samples[1])
        assert np.array_equal(Session(model, scheme).run(samples[1]), named)
        density = [Session(model, scheme, residual_dtype=s, density=0.03) for s in ("int8", "fp16")]
        assert np.array_equal(*(session.run(samples[1]) for session in density))


def test_threads_do_not_matter(model: bytes, samples: list[Array]) -> None:
    one, three = (
        Session(model, "qpp", residual_dtype="fp16", threads=threads) for threads in (1, 3)
    )
    assert np.array_equal(one.run(samples[2]), three.run(samples[2]))
