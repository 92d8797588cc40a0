# SPDX-License-Identifier: Apache-2.0
"""Numbers at the limits of int32 and fp16: correct results, or errors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import qppengine as qe
from qppengine import reference
from qppengine.metrics import sqnr
from qppengine.model_file import serialize
from qppengine.session import Session

if TYPE_CHECKING:
    from qppengine.ir import Array

SCHEMES = ("static", "dynamic", "qpp")


def linear_network(weight: Array) -> qe.Graph:
    """A layer that reads all of 16 channels, each of which holds the input."""
    size = round((weight.shape[1] / 16) ** 0.5)
    net = qe.GraphBuilder("linear")
    x = net.input("x", (1, 1, size, size))
    many = net.conv2d(x, np.ones((16, 1, 1, 1), np.float32), name="many")
    net.output(net.conv2d(net.flatten(many), weight, name="linear"))
    return net.build()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_sums_beyond_int32_are_left_to_fp16(scheme: str) -> None:
    rng = np.random.default_rng(0)
    inputs = 16 * 80 * 80
    images = [rng.random((1, 1, 80, 80)).astype(np.float32) for _ in range(8)]
    even = np.full((3, inputs, 1, 1), 2**-10, np.float32)
    peaked = even.copy()
    peaked[:, 0] = 63.5 * 2**-10  # the others are two steps
    for weight, fits in ((even, False), (peaked, True)):
        graph = linear_network(weight)
        data = serialize(graph, qe.fit(qe.calibrate(graph, images, 1.0, progress=False)))
        session = Session(data, scheme)
        result = session.run(images[0])
        (exact,) = reference.run(graph, images[0])
        assert sqnr(result, exact) > 35
        step = next(step for step in session.explain() if step["node"] == "linear")
        assert ("_qai8_qsi8cx_" in step["kernel"]) == fits
        assert ("could exceed int32" in step["note"]) != fits
        assert all(step["note"] == "" for step in session.explain() if step["node"] != "linear")
    assert all(step["note"] == "" for step in Session(data, "fp16").explain())


def gain_network(kind: str, gain: float) -> qe.Graph:
    """Every other filter has tiny or huge weights."""
    rng = np.random.default_rng(2)
    groups = 16 if kind == "depthwise" else 1
    size = 1 if kind == "pointwise" else 3
    weight = rng.normal(size=(16, 16 // groups, size, size)).astype(np.float32) / (size * 4)
    weight[::2] *= np.float32(gain)
    net = qe.GraphBuilder(kind)
    x = net.input("x", (1, 16, 12, 12))
    net.output(net.conv2d(x, weight, padding=size // 2, groups=groups, name="c"))
    return net.build()


@pytest.mark.parametrize("gain", [1e-4, 1e-3, 100, 1e5])
@pytest.mark.parametrize("kind", ["pointwise", "plain", "depthwise"])
def test_filters_of_any_size_keep_their_digits(kind: str, gain: float) -> None:
    graph = gain_network(kind, gain)
    x = np.random.default_rng(3).random((1, 16, 12, 12), np.float32) * np.float32(min(1, 10 / gain))
    images = [x * np.float32(factor) for factor in np.linspace(0.8, 1.2, 8)]
    data = serialize(graph, qe.fit(qe.calibrate(graph, images, 1.0, progress=False)))
    (exact,) = reference.run(graph, x)
    for algorithm in ("direct", "winograd"):
        for scheme in ("fp16", *SCHEMES):
            result = Session(data, scheme, algorithm=algorithm).run(x)
            for channels in (slice(0, None, 2), slice(1, None, 2)):
                least = 30 if scheme in SCHEMES else 42
                assert sqnr(result[:, channels], exact[:, channels]) > least, (algorithm, scheme)


@pytest.mark.parametrize("scheme", ["fp16", "dynamic"])  # the others cut to known bounds
def test_overflow_names_the_value(scheme: str) -> None:
    weight = np.full((8, 8, 1, 1), 40.0, np.float32)
    net = qe.GraphBuilder("overflow")
    x = net.input("x", (1, 8, 4, 4))
    y = net.conv2d(net.conv2d(net.relu(x), weight, name="small"), weight, name="large")
    net.output(y)
    graph = net.build()
    images = [np.full((1, 8, 4, 4), value, np.float32) for value in np.linspace(0.1, 0.2, 8)]
    if scheme != "fp16":
        graph = qe.keep_fp16(graph, skip_last=True)
    data = serialize(
        graph,
        None if scheme == "fp16" else qe.fit(qe.calibrate(graph, images, 1.0, progress=False)),
    )
    session = Session(data, scheme)
    session.run(images[0] * 0.01)
    with pytest.raises(qe.NonFiniteError, match=r"value 'large': .* overflow of fp16"):
        session.run(images[0] * 10)
    assert np.isfinite(session.run(images[0])).all()


def test_nan_of_finite_inputs_names_the_value() -> None:
    net = qe.GraphBuilder("root")
    net.output(net.relu(net.unary(net.input("x", (1, 1, 2, 2)), "sqrt", name="root")))
    session = Session(serialize(net.build()), "fp16")
    with pytest.raises(qe.NonFiniteError, match=r"value 'root': got NaN from finite inputs"):
        session.run(np.array([[[[4, 1], [-1, 0]]]], np.float32))
    assert np.isfinite(session.run(np.ones((1, 1, 2, 2), np.float32))).all()


def test_fp16_passes_on_what_an_input_holds() -> None:
    net = qe.GraphBuilder("infinite")
    net.output(net.relu(net.input("x", (1, 1, 2, 2))))
    x = np.array([[[[np.inf, 1], [-np.inf, 7e4]]]], np.float32)
    result = Session(serialize(net.build()), "fp16").run(x)
    assert np.array_equal(result, [[[[np.inf, 1], [0, np.inf]]]])
