# SPDX-License-Identifier: Apache-2.0
"""Altered model files with every operation: refused with one of our errors, or run."""

from __future__ import annotations

import copy
import json
from typing import Any

import numpy as np
import pytest
import qppengine as qe
from mutations import JUNK, find_places
from networks import everything
from qppengine.errors import Error
from qppengine.model_file import load_graph, serialize
from qppengine.session import SCHEMES, Session

pytest.importorskip("safetensors")
pytest.importorskip("sklearn")

SEEDS = range(6)
# Small, so that files that ask for huge images are refused and do not run for minutes.
LIMITS = qe.Limits(value_elements=1 << 17)


@pytest.fixture(scope="module")
def data() -> bytes:
    """A network of all operations, calibrated."""
    rng = np.random.default_rng(4)
    graph = everything()
    samples = [rng.random((1, 3, 16, 20), np.float32) for _ in range(8)]
    return serialize(graph, qe.fit(qe.calibrate(graph, samples, progress=False)))


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
            session = Session(data, scheme, density=density, limits=LIMITS)
            session.run(np.ones((1, 3, 16, 20), np.float32))
        load_graph(data)
    except Error:
        return False
    return True


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
            places = find_places(graph)
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
        ({"groups": 2}, "expected one group together with a residual, got 2"),
        ({"activation": "tanh"}, "expected the activation none, relu or clamp together with"),
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
        places = find_places(entry)
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
