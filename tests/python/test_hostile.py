# SPDX-License-Identifier: Apache-2.0
"""Altered model files with every operation: refused with one of our errors, or run."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import qppengine as qe
from qppengine.errors import Error
from qppengine.serialize import load_graph, serialize
from qppengine.session import SCHEMES, Session

if TYPE_CHECKING:
    from qppengine.graph import Array

pytest.importorskip("safetensors")
pytest.importorskip("sklearn")

SEEDS = range(6)
JUNK: list[Any] = [
    *(None, True, -1, 0, 1, 3, 7, 255, 65536, 2**31, 2**63, 2**70, 0.5, -1.5, 1e30),
    *("", "x", "none", "relu", "clamp", [], [[]], [0, 0], [3, 3], [65536, 65536], {}, {"a": 3}),
]


@pytest.fixture(scope="module")
def data() -> bytes:
    """A network of all operations, calibrated."""
    rng = np.random.default_rng(4)

    def weight(*shape: int) -> Array:
        return np.asarray(rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape), np.float32)

    net = qe.GraphBuilder("everything")
    x = net.input("x", (None, 3, None, None))
    y = net.conv2d(x, weight(8, 3, 5, 5), np.zeros(8), stride=2, padding=2, activation="relu")
    y = net.max_pool2d(y, 3, stride=2, padding=1, ceil_mode=True)
    depthwise = net.conv2d(y, weight(8, 1, 3, 3), padding=1, groups=8, activation="tanh")
    grouped = net.conv2d(y, weight(8, 4, 3, 3), padding=2, dilation=2, groups=2)
    y = net.conv2d(y, weight(8, 8, 3, 3), padding=1, residual=y)
    y = net.concat(net.add(depthwise, y, activation="relu"), net.sub(grouped, y), y)
    gate = net.function(net.global_avg_pool(y), "sigmoid")
    y = net.mul(y, gate)
    for function in ("silu", "hardsigmoid", "hardswish"):
        y = net.function(y, function)
    y = net.clamp(net.prelu(y, rng.random(24)), -1, 3)
    y = net.avg_pool2d(net.conv2d(y, weight(16, 24, 3, 3), padding=1), 2, count_include_pad=False)
    y = net.resize(y, scale=2, mode="bilinear", align_corners=True)
    y = net.pixel_shuffle(net.conv2d(y, weight(12, 16, 1, 1)), 2)
    y = net.pixel_unshuffle(net.pad(y, (0, 1, 2, 1), mode="reflect"), 2)
    y = net.conv_transpose2d(y, weight(12, 6, 3, 3), stride=2, padding=1, output_padding=1)
    y = net.slice(y, 1, 0, 4, 2)
    classes = net.adaptive_max_pool2d(net.adaptive_avg_pool2d(y, 6), (3, 2))
    net.output(
        y,
        net.conv2d(net.global_avg_pool(y), weight(5, 2, 1, 1)),
        net.flatten(net.resize(y, size=(2, 3))),
        net.softmax(classes),
        net.softmax(net.rearrange(classes, (2, 3, 2), (1, 2, 0)), log=True),
        net.argmax(classes),
    )
    graph = net.build()
    samples = [rng.random((1, 3, 16, 20), np.float32) for _ in range(8)]
    return serialize(graph, qe.calibrate(graph, samples, progress=False))


def split(data: bytes) -> tuple[dict[str, Any], Any, bytes]:
    """Header, graph and tensors of a file."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    return header, json.loads(header["__metadata__"]["graph"]), data[8 + length :]


def join(header: dict[str, Any], graph: Any, tensors: bytes) -> bytes:
    header["__metadata__"]["graph"] = json.dumps(graph)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + tensors


def attempt(data: bytes, scheme: str) -> bool:
    """Whether a file loads and runs; it must not raise anything but our errors."""
    try:
        for density in (None,) if scheme == "fp16" else (None, 0.03):
            Session(data, scheme, density=density).run(np.ones((1, 3, 16, 20), np.float32))
        load_graph(data)
    except Error:
        return False
    return True


def leaves(node: Any) -> list[tuple[Any, Any]]:
    """Every place of a JSON document: container and key."""
    keys = node if isinstance(node, dict) else range(len(node))
    found = [(node, key) for key in keys]
    for key in keys:
        if isinstance(node[key], (dict, list)):
            found += leaves(node[key])
    return found


def test_the_network_has_every_operation(data: bytes) -> None:
    from qppengine import operations

    used = {node["op"] for node in split(data)[1]["nodes"]}
    replaced = {"batch_norm", "conv_transpose2d"}  # by convolutions, before a file is written
    assert used == set(operations.OPERATIONS) - replaced
    for scheme in SCHEMES:
        assert attempt(data, scheme)


@pytest.mark.parametrize("seed", SEEDS)
def test_junk_anywhere_in_the_graph(seed: int, data: bytes) -> None:
    rng = np.random.default_rng(seed)
    header, sound, tensors = split(data)
    ran = 0
    for _ in range(200):
        graph = copy.deepcopy(sound)
        for _ in range(rng.integers(1, 3)):
            places = leaves(graph)
            container, key = places[rng.integers(len(places))]
            container[key] = JUNK[rng.integers(len(JUNK))]
        ran += attempt(join(header, graph, tensors), SCHEMES[rng.integers(4)])
    assert ran < 200


@pytest.mark.parametrize("seed", SEEDS)
def test_parts_of_the_graph_exchanged(seed: int, data: bytes) -> None:
    """What is well formed everywhere but fits nowhere: other inputs, tensors, operations."""
    rng = np.random.default_rng(seed)
    header, sound, tensors = split(data)
    for _ in range(200):
        graph = copy.deepcopy(sound)
        key = ("inputs", "tensors", "op", "attributes", "output", "name")[rng.integers(6)]
        one, other = rng.choice(len(graph["nodes"]), 2, replace=False)
        graph["nodes"][one][key] = copy.deepcopy(graph["nodes"][other][key])
        if rng.random() < 0.3:
            graph["nodes"].pop(rng.integers(len(graph["nodes"])))
        attempt(join(header, graph, tensors), SCHEMES[rng.integers(4)])


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (
            {"inputs": ["max_pool2d", "missing"]},
            "the value 'missing' is not defined before its use",
        ),
        ({"inputs": ["max_pool2d", "conv2d_4"]}, "'conv2d_4' is not defined before its use"),
        ({"inputs": ["max_pool2d"] * 3}, "expected 1 to 2 inputs, got 3"),
        ({"inputs": ["max_pool2d", "x"]}, "expected a residual of the output's shape"),
        ({"groups": 2}, "expected one group beside a second input, which is added, got 2"),
        ({"activation": "tanh"}, "expected the activation none, relu or clamp beside a second"),
    ],
)
def test_broken_residuals_are_told(changes: Any, problem: str, data: bytes) -> None:
    header, graph, tensors = split(data)
    (node,) = (n for n in graph["nodes"] if n["op"] == "conv2d" and len(n["inputs"]) > 1)
    node["inputs"] = changes.pop("inputs", node["inputs"])
    node["attributes"] |= changes
    with pytest.raises(Error, match=problem):
        Session(join(header, graph, tensors), "fp16").run(np.ones((1, 3, 16, 20), np.float32))


@pytest.mark.parametrize("seed", SEEDS)
def test_junk_in_the_description_of_tensors(seed: int, data: bytes) -> None:
    rng = np.random.default_rng(seed)
    header, graph, tensors = split(data)
    names = [name for name in header if name != "__metadata__"]
    refused = 0
    for _ in range(150):
        altered = copy.deepcopy(header)
        entry = altered[names[rng.integers(len(names))]]
        places = leaves(entry)
        container, key = places[rng.integers(len(places))]
        container[key] = JUNK[rng.integers(len(JUNK))]
        refused += not attempt(join(altered, graph, tensors), "fp16")
    assert refused > 100


@pytest.mark.parametrize("seed", SEEDS)
def test_flipped_bits_and_truncations(seed: int, data: bytes) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(200):
        altered = bytearray(data)
        altered[rng.integers(len(data))] ^= 1 << rng.integers(8)
        attempt(bytes(altered), SCHEMES[rng.integers(4)])
        assert not attempt(data[: rng.integers(len(data))], "fp16")
