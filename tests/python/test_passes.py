# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from qppengine import Graph, GraphBuilder, Limits, ModelError, keep_fp16, reference
from qppengine.passes import drop_identities, fold_batch_norm, fuse_activations, optimize

if TYPE_CHECKING:
    from qppengine.ir import Array

RNG = np.random.default_rng(3)


def normal(*shape: int) -> Array:
    return RNG.standard_normal(shape, np.float32)


def norm(net: GraphBuilder, x: str, channels: int) -> str:
    weight, bias, mean = normal(channels), normal(channels), normal(channels)
    return net.batch_norm(x, weight, bias, mean, RNG.uniform(0.5, 2, channels), eps=1e-3)


def start() -> tuple[GraphBuilder, str]:
    net = GraphBuilder("g")
    return net, net.input("x", (1, 3, 8, 9))


def assert_same_function(before: Graph, after: Graph) -> None:
    x = normal(1, 3, 8, 9)
    for y, z in zip(reference.run(before, x), reference.run(after, x), strict=True):
        np.testing.assert_allclose(y, z, rtol=1e-4, atol=1e-4)


def ops(graph: Graph) -> list[str]:
    return [node.op for node in graph.nodes]


@pytest.mark.parametrize("bias", [None, normal(4)])
def test_batch_norm_folds_into_the_convolution_before_it(bias: Any) -> None:
    net, x = start()
    net.output(net.relu(norm(net, net.conv2d(x, normal(4, 3, 3, 3), bias, name="c"), 4)))
    before = net.build()
    after = optimize(before)
    assert ops(after) == ["conv2d"]
    assert after.outputs == before.outputs
    assert after.nodes[0].attributes["activation"] == "relu"
    assert_same_function(before, after)


def test_batch_norm_elsewhere_becomes_a_convolution() -> None:
    net, x = start()
    conv = net.conv2d(x, normal(3, 3, 3, 3), padding=1)
    net.output(norm(net, conv, 3), norm(net, norm(net, x, 3), 3))  # conv has a second reader
    net.output(conv)
    before = net.build()
    after = fold_batch_norm(before)
    assert ops(after) == ["conv2d"] * 3  # of two in a row one remains
    assert [node.attributes.get("groups") for node in after.nodes] == [None, 3, 3]
    assert_same_function(before, after)
    assert ops(fold_batch_norm(after)) == ["conv2d"] * 3


@pytest.mark.parametrize(
    "attributes",
    [
        {"stride": 3000},
        {"stride": 2**62},
        {"padding": 2**62},
        {"dilation": 2**62},
        {"stride": 2**20, "dilation": 2**40},
    ],
)
def test_transposed_convolutions_stay_about_as_large(attributes: Any) -> None:
    net = GraphBuilder("g")
    x = net.input("x", (1, 3, None, None))
    net.output(net.conv_transpose2d(x, normal(3, 2, 3, 3), **attributes))
    with pytest.raises(ModelError, match=r"conv_transpose2d: .* the limit computed_bytes"):
        optimize(net.build())
    many, x = start()
    for _ in range(40):
        x = many.conv_transpose2d(x, normal(3, 3, 3, 3), stride=200)
    many.output(x)
    with pytest.raises(ModelError, match="the limit computed_bytes"):
        optimize(many.build())
    with pytest.raises(ModelError, match="computed_bytes = 1000"):
        optimize(many.build(), Limits(computed_bytes=1000))


@pytest.mark.parametrize("activation", ["relu", "tanh", "clamp"])
def test_activation_fuses_into_the_convolution_before_it(activation: str) -> None:
    net, x = start()
    clamp = (-0.5, 0.25) if activation == "clamp" else None
    conv = net.conv2d(x, normal(4, 3, 3, 3))
    net.output(net.activation(conv, activation, clamp=clamp))
    before = net.build()
    after = fuse_activations(before)
    assert ops(after) == ["conv2d"]
    assert_same_function(before, after)


def test_activation_stays_where_its_input_is_needed() -> None:
    net, x = start()
    shared = net.conv2d(x, normal(4, 3, 3, 3))
    net.output(net.relu(shared), net.tanh(shared))
    shown = net.conv2d(x, normal(4, 3, 3, 3))
    net.output(shown, net.relu(shown))
    twice = net.tanh(net.relu(net.conv2d(x, normal(4, 3, 3, 3))))
    net.output(twice, net.relu(x))
    before = net.build()
    after = optimize(before)
    assert ops(after).count("activation") == 5  # of the two in a row only the first is fused
    assert_same_function(before, after)


def test_identities_disappear() -> None:
    net, x = start()
    inner = net.activation(net.activation(x, "none"), "none")
    conv = net.conv2d(inner, normal(4, 3, 3, 3), name="c")
    net.output(net.activation(conv, "none"))
    after = drop_identities(net.build())
    assert ops(after) == ["conv2d"]
    assert (after.nodes[0].inputs, after.outputs) == (("x",), ("c",))


def test_identities_stay_where_they_name_a_value_twice() -> None:
    net, x = start()
    conv = net.conv2d(x, normal(4, 3, 3, 3), name="c")
    net.output(net.activation(x, "none"), *(net.activation(conv, "none") for _ in range(2)))
    before = net.build()
    after = drop_identities(before)
    assert ops(after) == ["conv2d", "activation", "activation"]
    assert_same_function(before, after)


@pytest.mark.parametrize("seed", range(20))
def test_passes_keep_the_function_of_random_networks(seed: int) -> None:
    rng = np.random.default_rng(seed)
    net, x = start()
    values = [x]
    for _ in range(12):
        source = values[-1] if rng.random() < 0.7 else values[rng.integers(len(values))]
        kind = rng.integers(4)
        if kind == 0:
            values.append(norm(net, source, 3))
        elif kind == 1:
            values.append(net.activation(source, ["none", "relu", "tanh"][rng.integers(3)]))
        else:
            values.append(net.conv2d(source, normal(3, 3, 3, 3) / 5, padding=1))
    net.output(values[-1], *(v for v in values[1:-1] if rng.random() < 0.2))
    before = net.build()
    after = optimize(before)
    assert "batch_norm" not in ops(after)
    assert len(after.nodes) <= len(before.nodes)
    assert_same_function(before, after)
    again = optimize(after)
    assert [(n.name, n.attributes) for n in again.nodes] == [
        (n.name, n.attributes) for n in after.nodes
    ]


def residuals(graph: Graph) -> dict[str, tuple[str, ...]]:
    """What the convolutions add, by name."""
    return {node.name: node.inputs[1:] for node in graph.nodes if node.op == "conv2d"}


def unit(net: GraphBuilder, x: str, name: str) -> str:
    return net.conv2d(x, normal(3, 3, 3, 3) / 5, padding=1, name=name)


@pytest.mark.parametrize("swapped", [False, True])
def test_convolutions_add_their_skip_connection(swapped: bool) -> None:
    net, x = start()
    terms = (x, unit(net, net.relu(unit(net, x, "first")), "second"))
    net.output(net.relu(net.add(*terms[:: -1 if swapped else 1])))
    before = net.build()
    after = optimize(before)
    assert residuals(after) == {"first": (), "second": ("x",)}
    assert [node.attributes["activation"] for node in after.nodes] == ["relu", "relu"]
    assert_same_function(before, after)


def test_of_two_convolutions_the_later_one_adds() -> None:
    net, x = start()
    main = unit(net, x, "main")
    net.output(net.add(main, unit(net, x, "short")))
    before = net.build()
    after = optimize(before)
    assert residuals(after) == {"main": (), "short": ("main",)}
    assert_same_function(before, after)


def test_a_convolution_adds_what_is_computed_behind_it() -> None:
    net, x = start()
    conv = unit(net, x, "conv")
    net.output(net.add(conv, net.unary(x, "sigmoid")))
    before = net.build()
    after = optimize(before)
    assert ops(after) == ["sigmoid", "conv2d"]
    assert residuals(after) == {"conv": ("sigmoid",)}
    assert_same_function(before, after)


def test_the_terms_of_a_sum_are_shared_out() -> None:
    net, x = start()
    total = net.add(unit(net, x, "a"), unit(net, x, "b"))
    total = net.add(total, unit(net, x, "c"))
    for term in (net.unary(x, "sigmoid"), net.tanh(x)):
        total = net.add(total, term)
    net.output(net.relu(total))
    before = net.build()
    after = optimize(before)
    assert residuals(after) == {"a": ("sigmoid",), "b": ("a",), "c": ("b",)}
    assert ops(after).count("add") == 1  # for tanh no convolution is left
    assert_same_function(before, after)
    again = optimize(after)
    assert [(n.name, n.inputs) for n in again.nodes] == [(n.name, n.inputs) for n in after.nodes]


def test_sums_stay_that_no_convolution_can_take() -> None:
    net, x = start()
    shared = unit(net, x, "shared")
    activated = net.relu(unit(net, x, "activated"))
    grouped = net.conv2d(x, normal(3, 1, 3, 3), padding=1, groups=3, name="grouped")
    doubled = unit(net, x, "doubled")
    named = unit(net, x, "named")
    net.output(
        net.add(shared, x),
        net.add(activated, x),
        net.add(grouped, x),
        net.add(doubled, doubled),
        net.add(unit(net, x, "by channel"), net.global_avg_pool(x)),
        net.add(named, x),
        net.sub(shared, x),
        named,
    )
    before = net.build()
    after = optimize(before)
    assert not any(residuals(after).values())
    assert_same_function(before, after)


def test_what_follows_a_residual_is_not_merged_into_the_weights() -> None:
    net, x = start()
    y = net.conv2d(x, normal(3, 3, 3, 3), padding=1, residual=x)
    net.output(norm(net, y, 3), net.tanh(net.conv2d(x, normal(3, 3, 1, 1), residual=x)))
    before = net.build()
    after = optimize(before)
    assert ops(after) == ["conv2d", "conv2d", "conv2d", "activation"]
    assert_same_function(before, after)


def test_sums_read_in_fp16_stay_beside_convolutions_in_int8() -> None:
    net, x = start()
    y = net.add(unit(net, x, "conv"), x)
    net.output(y)
    graph = net.build()
    nodes = tuple(replace(node, fp16=node.op == "add") for node in graph.nodes)
    after = optimize(replace(graph, nodes=nodes))
    assert ops(after) == ["conv2d", "add"]


def test_a_residual_is_read_in_int8_where_its_sum_is() -> None:
    net, x = start()
    y = net.conv2d(unit(net, x, "first"), normal(3, 3, 1, 1), residual=x, name="second")
    net.output(net.conv2d(y, normal(3, 3, 1, 1), residual=y, name="third"))
    graph = net.build()
    *_, second, third = graph.nodes
    assert (graph.reads_int8(second, 0), graph.reads_int8(second, 1)) == (True, True)
    assert (graph.reads_int8(third, 0), graph.reads_int8(third, 1)) == (True, False)
    assert graph.quantized_values == ("x", "first", "second")


def stages() -> Graph:
    """Two branches of convolutions after one, each with a linear layer at the end."""
    net, x = start()
    stem = net.relu(norm(net, net.conv2d(x, normal(4, 3, 3, 3), padding=1, name="stem.conv"), 4))
    for branch in ("a", "b"):
        y = net.conv2d(stem, normal(4, 4, 3, 3), padding=1, name=f"{branch}.body")
        y = net.global_avg_pool(net.add(y, stem))
        net.output(net.conv2d(y, normal(2, 4, 1, 1), name=f"{branch}.head"))
    return net.build()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, []),
        ({"skip_first": True}, ["stem.conv"]),
        ({"skip_last": True}, ["a.head", "b.head"]),
        ({"modules": ["b", "stem.conv"]}, ["stem.conv", "b.body", "b.head"]),
        ({"modules": ["a.head"], "skip_first": True}, ["stem.conv", "a.head"]),
    ],
)
def test_layers_can_keep_fp16(arguments: Any, expected: list[str]) -> None:
    graph = keep_fp16(stages(), **arguments)
    assert [node.name for node in graph.nodes if node.fp16] == expected
    assert graph.int8_nodes.isdisjoint(expected)
    assert [node.name for node in optimize(graph).nodes if node.fp16] == expected


def test_values_that_only_fp16_reads_own_no_row() -> None:
    assert stages().qparams_groups["x"] == "x"
    graph = keep_fp16(stages(), skip_first=True, skip_last=True)
    assert graph.quantized_values == ("stem.conv",)


def test_modules_that_keep_fp16_have_to_exist() -> None:
    with pytest.raises(ModelError, match=r"no 'a\.', 'relu', its nodes are stem\.conv, a\.body"):
        keep_fp16(stages(), ["a.", "a", "relu"])
