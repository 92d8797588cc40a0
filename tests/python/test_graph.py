# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import doctest
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import qppengine.builder
from qppengine import Graph, GraphBuilder, InputInfo, ModelError, Node, ShapeError

CONV = {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1), "activation": "none"}


def ones(*shape: int) -> Any:
    return np.ones(shape, np.float32)


def conv(**changes: Any) -> Node:
    node = Node("conv2d", "c", ("x",), "c", CONV, {"weight": ones(4, 3, 3, 3), "bias": ones(4)})
    return replace(node, **changes)


def one_node(node: Node) -> Graph:
    return Graph("g", (InputInfo("x", (1, 3, None, 8)),), (node.output,), (node,))


def test_shapes_follow_the_operations(graph: Graph) -> None:
    assert graph.shapes == {
        "x": (None, 3, None, None),
        "head": (None, 12, None, None),
        "act": (None, 12, None, None),
        "body": (None, 16, None, None),
        "relu": (None, 16, None, None),
        "tail": (None, 8, None, None),
        "clamp": (None, 8, None, None),
        "shuffle": (None, 2, None, None),
    }
    shapes = graph.infer_shapes({"x": (2, 3, 9, 10)})
    assert shapes["body"] == (2, 16, 5, 10)
    assert shapes["shuffle"] == (2, 2, 10, 20)


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding", "dilation"),
    [(7, 3, 2, 1, 1), (8, 3, 2, 0, 1), (9, 5, 1, 2, 2), (6, 1, 3, 0, 1), (10, 4, 3, 2, 2)],
)
def test_convolution_sizes_count_the_windows_that_fit(
    size: int, kernel: int, stride: int, padding: int, dilation: int
) -> None:
    net = GraphBuilder("g")
    x = net.input("x", (1, 1, size, size))
    y = net.conv2d(x, ones(1, 1, kernel, kernel), stride=stride, padding=padding, dilation=dilation)
    net.output(y)
    windows = range(0, size + 2 * padding - dilation * (kernel - 1), stride)
    assert net.build().shapes[y] == (1, 1, len(windows), len(windows))


def test_values_read_by_convolutions_are_quantized_in_order_of_definition(graph: Graph) -> None:
    assert graph.quantized_values == ("x", "act", "relu")


def test_operations_after_convolutions_read_int8_only_for_later_convolutions() -> None:
    net = GraphBuilder("g")
    x = net.input("x", (1, 4, 8, 8))
    a = net.conv2d(x, ones(4, 4, 3, 3), padding=1, name="a")
    pool = net.max_pool2d(a, 2, name="pool")  # shares the quantization parameters of a
    mean = net.avg_pool2d(a, 2, name="mean")
    total = net.add(pool, mean, name="total")
    gate = net.unary(total, "sigmoid", name="gate")  # computes in fp16
    b = net.conv2d(total, ones(4, 4, 3, 3), padding=1, residual=gate, name="b")
    net.output(net.global_avg_pool(b, name="y"))
    graph = net.build()
    assert graph.int8_nodes == {"a", "pool", "mean", "total", "b"}
    assert [graph.reads_int8(graph.nodes[-2], index) for index in (0, 1)] == [True, False]
    assert graph.qparams_groups == {
        "x": "x",
        "a": "a",
        "pool": "a",
        "mean": "mean",
        "total": "total",
    }
    assert graph.quantized_values == ("x", "a", "mean", "total")
    assert [node.name for node in graph.nodes if graph.shares_qparams(node)] == ["pool"]


def test_nodes_that_keep_fp16_and_other_operations_end_int8() -> None:
    net = GraphBuilder("g")
    x = net.input("x", (1, 4, 8, 8))
    scaled = net.batch_norm(x, ones(4), ones(4), ones(4), ones(4), name="scaled")
    first = net.conv2d(scaled, ones(4, 4, 3, 3), padding=1, name="first")
    net.output(net.conv2d(net.relu(first, name="act"), ones(4, 4, 1, 1), name="last"))
    graph = net.build()
    assert graph.qparams_groups == {"scaled": "scaled", "act": "act"}
    kept = replace(graph, nodes=tuple(replace(n, fp16=n.name == "last") for n in graph.nodes))
    assert kept.qparams_groups == {"scaled": "scaled"}


@pytest.mark.parametrize(
    ("node", "problem"),
    [
        (conv(op="linear"), "unknown operation 'linear'"),
        (conv(inputs=("z",)), "reads 'z' before it is defined"),
        (conv(inputs=("x", "x", "x")), "takes 1 or 2 inputs, got 3"),
        (conv(inputs=("x", "x")), r"a residual of the output's shape \[1, 4, None, 8\], 'x' has"),
        (
            conv(inputs=("x", "x"), attributes=CONV | {"activation": "tanh"}),
            "with a residual must be one of none, relu, clamp",
        ),
        (
            conv(inputs=("x", "x"), attributes=CONV | {"groups": 3}),
            "a residual belongs to a convolution of one group",
        ),
        (conv(output="x"), "value 'x' is defined 2 times"),
        (conv(name=""), "a node has an empty name"),
        (conv(tensors={}), "tensor 'weight' is missing"),
        (conv(tensors={"weight": ones(4, 3, 3)}), "'weight' must have 4 dimensions"),
        (conv(tensors={"weight": np.ones((4, 3, 3, 3))}), "must be float32, got float64"),
        (conv(tensors={"weight": ones(4, 3, 3, 3) * np.nan}), "holds NaN or infinity"),
        (conv(tensors={"weight": ones(4, 2, 3, 3)}), "takes 2 channels, 'x' has 3"),
        (conv(tensors={"weight": ones(4, 3, 3, 13)}), "smaller than the window of 13"),
        (
            conv(tensors={"weight": ones(4, 3, 3, 3), "bias": ones(5)}),
            "expected bias of length 4, got 5",
        ),
        (conv(tensors={"weight": ones(4, 3, 3, 3), "gain": ones(4)}), "has no tensor 'gain'"),
        (conv(attributes=CONV | {"gain": 1}), "has no attribute 'gain'"),
        (conv(attributes=CONV | {"groups": 3}), "3 groups must divide the 4 filters"),
        (conv(attributes=CONV | {"groups": 2}), "takes 6 channels, 'x' has 3"),
        (conv(attributes=CONV | {"stride": (0, 1)}), "'stride' must be two integers of at least 1"),
        (conv(attributes=CONV | {"padding": (1.0, 1)}), "'padding' must be two or four integers"),
        (conv(attributes={}), "attribute 'dilation' is missing"),
        (conv(attributes=CONV | {"activation": "gelu"}), "one of none, relu, tanh, clamp"),
        (conv(attributes=CONV | {"activation": "clamp"}), "'clamp' belongs to activation 'clamp'"),
        (conv(attributes=CONV | {"clamp": (0, 1)}), "'clamp' belongs to activation 'clamp'"),
        (
            conv(attributes=CONV | {"activation": "clamp", "clamp": (1, 0)}),
            "two finite numbers lo <= hi",
        ),
        (
            Node("pixel_shuffle", "p", ("x",), "p", {"upscale_factor": 2}),
            "needs a multiple of 4 channels, 'x' has 3",
        ),
    ],
)
def test_invalid_nodes_are_named_with_their_problem(node: Node, problem: str) -> None:
    with pytest.raises(ModelError, match=problem):
        one_node(node)


@pytest.mark.parametrize(
    ("shape", "problem"),
    [
        ((1, 3, 8), r"expected \[N, C, H, W\]"),
        ((1, None, 8, 8), "channels must be known"),
        ((1, 3, 0, 8), "at least 1"),
    ],
)
def test_invalid_inputs_are_named(shape: Any, problem: str) -> None:
    with pytest.raises(ModelError, match=f"input 'x': .*{problem}"):
        Graph("g", (InputInfo("x", shape),), ("c",), (conv(),))


def test_all_problems_are_told_at_once() -> None:
    nodes = (
        conv(tensors={}),
        conv(name="d", output="d", inputs=("q",), attributes=CONV | {"a": 1}),
    )
    with pytest.raises(ModelError) as caught:
        Graph("g", (), ("y",), nodes)
    message = str(caught.value)
    for part in ("no inputs", "'weight' is missing", "reads 'q'", "attribute 'a'", "output 'y'"):
        assert part in message
    assert "graph 'g' is invalid (6 problems)" in message


def test_consequences_of_a_wrong_shape_are_not_reported() -> None:
    wrong = conv(tensors={"weight": ones(4, 2, 3, 3)})
    after = conv(name="d", inputs=("c",), output="d")
    with pytest.raises(ModelError, match="1 problem"):
        Graph("g", (InputInfo("x", (1, 3, 8, 8)),), ("d",), (wrong, after))


def test_inference_for_an_image_too_small_names_the_node() -> None:
    graph = one_node(conv(attributes=CONV | {"padding": (0, 0)}))
    with pytest.raises(ShapeError, match="c: 'x' of size 2"):
        graph.infer_shapes({"x": (1, 3, 2, 8)})


def test_builder_makes_names_unique() -> None:
    net = GraphBuilder("g")
    x = net.input("relu", (1, 1, 4, 4))
    assert [net.relu(x), net.relu(x), net.relu(x, name="relu_1")] == [
        "relu_1",
        "relu_2",
        "relu_1_1",
    ]


def test_docstring_example() -> None:
    assert doctest.testmod(qppengine.builder).failed == 0
