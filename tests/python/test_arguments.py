# SPDX-License-Identifier: Apache-2.0
"""Arguments of wrong types: one of the package's errors, which names the argument."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import qppengine as qe
from qppengine import metrics, reference
from qppengine.model_file import serialize

pytest.importorskip("sklearn")

if TYPE_CHECKING:
    from collections.abc import Callable

HUGE: Any = 10**400
NOTHING: Any = None
ONE: Any = 1
TEXT: Any = "text"


def small_graph() -> qe.Graph:
    net = qe.GraphBuilder("small")
    x = net.input("x", (None, 1, None, None))
    net.output(net.conv2d(x, np.ones((2, 1, 3, 3)), padding=1))
    return net.build()


GRAPH = small_graph()
SAMPLES = [np.full((1, 1, 6, 6), i, np.float32) for i in range(12)]


def build(method: str, *arguments: Any, **options: Any) -> qe.Graph:
    """A graph of one operation of the builder."""
    net = qe.GraphBuilder("one")
    net.output(getattr(net, method)(net.input("x", (1, 2, 6, 6)), *arguments, **options))
    return net.build()


def with_node(**fields: Any) -> qe.Graph:
    """The graph with other fields of its node."""
    return replace(GRAPH, nodes=(replace(GRAPH.nodes[0], **fields),))


def calibrate(samples: Any = SAMPLES, **options: Any) -> qe.Calibration:
    return qe.calibrate(GRAPH, samples, progress=False, **options)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: qe.Session(serialize(GRAPH), limits=NOTHING), "limits: expected a Limits object"),
        (lambda: qe.load_graph(serialize(GRAPH), ONE), "limits: expected a Limits object, got 1"),
        (lambda: qe.from_onnx(b"", limits=NOTHING), "limits: expected a Limits object, got None"),
        (lambda: qe.from_torch("no.pt2", limits=ONE), "limits: expected a Limits object, got 1"),
        (lambda: qe.calibrate(NOTHING, SAMPLES), "graph: expected a Graph, got None"),
        (lambda: qe.save("no.qpp", TEXT), "graph: expected a Graph, got 'text'"),
        (lambda: qe.save("no.qpp", GRAPH, ONE), "quantization: expected the result of fit, got 1"),
        (lambda: qe.to_dot(ONE), "graph: expected a Graph, got 1"),
        (lambda: qe.keep_fp16(GRAPH, "conv2d"), "modules .*: expected a list of names, got 'conv"),
        (lambda: qe.keep_fp16(GRAPH, [ONE]), r"modules .*: expected a list of names, got \[1\]"),
        (lambda: calibrate(None), "samples: expected an iterable of arrays, got None"),
        (lambda: calibrate(alpha=HUGE), "alpha: expected above 0.5 and up to 1, got 1000"),
        (lambda: calibrate(densities=0.1), "densities: expected above 0 and up to 0.1, got 0.1"),
        (
            lambda: calibrate(densities=["a"]),
            r"densities: expected above 0 and up to 0.1, got \['a'\]",
        ),
        (lambda: calibrate(densities=[HUGE]), "densities: expected above 0 and up to 0.1"),
        (lambda: calibrate(positions=[1]), r"positions: expected a list of names of values"),
        (lambda: calibrate(features="max"), "features: expected a list of Feature objects, got 'm"),
        (lambda: calibrate(features={"x": ["max"]}), "features: expected a list of Feature"),
        (lambda: calibrate(executor=2), "executor: expected a concurrent.futures.Executor or None"),
        (lambda: qe.fit(calibrate(), margin=TEXT), "margin: expected .*, got 'text'"),
        (lambda: qe.fit(calibrate(), margin=HUGE), "margin: expected .*, got 1000"),
        (lambda: qe.fit(NOTHING), "calibration: expected the result of calibrate, got None"),
        (lambda: qe.Feature("quantile", HUGE), "expected above 0.5 and up to 1"),
        (lambda: qe.Session(serialize(GRAPH), "fp16", density=HUGE), "density"),
        (lambda: qe.GraphBuilder("n").input("x", NOTHING), r"input 'x': expected a shape \[N, C"),
        (lambda: build("conv2d", "w"), r"conv2d.weight: expected an array of numbers, got 'w'"),
        (lambda: build("conv2d", [[[[HUGE]]]]), "conv2d.weight: expected an array of numbers"),
        (lambda: build("max_pool2d", 2, stride=1.5), "'stride' must be two integers .* got 1.5"),
        (lambda: build("max_pool2d", 2, padding=HUGE), "padding"),
        (lambda: build("clamp", "a", 1), "'clamp' must be two finite numbers"),
        (lambda: build("clamp", 0, HUGE), "'clamp' must be two finite numbers"),
        (lambda: build("unary", "elu", alpha=HUGE), "'alpha' must be a finite number"),
        (lambda: build("affine", "a", 1), "affine: expected gain and shift to be one number or 2"),
        (lambda: build("affine", np.ones(3), 1), "affine: expected gain and shift to be one"),
        (lambda: build("add", 1), "add: input: expected the name of a value, got 1"),
        (lambda: build("relu", name=[1]), r"name: expected a string, got \[1\]"),
        (lambda: build("pad", None), "'padding' must be"),
        (lambda: build("resize", scale="a"), "'scale' must be"),
        (lambda: reference.run(GRAPH, TEXT), "input 'x': expected an array of numbers"),
        (lambda: reference.run(GRAPH, ONE), r"input 'x': expected \[N, C, H, W\], got \[\]"),
        (
            lambda: reference.run_quantized(GRAPH, {}, SAMPLES[0]),
            "bounds: expected those of",
        ),
        (
            lambda: metrics.psnr(SAMPLES[0], SAMPLES[0], peak=TEXT),
            "peak: expected a number, got 't",
        ),
        (lambda: metrics.psnr(SAMPLES[0], SAMPLES[0], border=TEXT), "border: expected a number of"),
        (lambda: build("rearrange", ONE), "view: expected a list of sizes, got 1"),
        (lambda: qe.GraphBuilder("n", NOTHING), "limits: expected a Limits object, got None"),
        (lambda: qe.Graph("n", NOTHING, (), ()), "inputs of a Graph must be a tuple of Input"),
        (
            lambda: replace(GRAPH, outputs=(ONE,)),
            "outputs of a Graph must be a tuple of names, got",
        ),
        (
            lambda: replace(GRAPH, nodes=(TEXT,)),
            "nodes of a Graph must be a tuple of Node objects",
        ),
        (lambda: with_node(inputs=ONE), "inputs of a Node must be a tuple of names, got 1"),
        (lambda: with_node(inputs=[ONE]), r"inputs of a Node must be a tuple of names, got \[1\]"),
        (lambda: with_node(attributes=NOTHING), "attributes of a Node must be a mapping"),
        (lambda: with_node(op=[]), r"op of a Node must be a string, got \[\]"),
        (lambda: metrics.psnr("a", SAMPLES[0]), "expected two arrays of numbers"),
    ],
)
def test_wrong_arguments_raise_errors_of_the_package(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(qe.Error, match=message):
        call()
