# SPDX-License-Identifier: Apache-2.0
"""Fuzzes model files: reading them, loading them in every scheme, and running small ones."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import qppengine as qe
from driver import Target, main
from mutations import alter_bytes, alter_json
from networks import everything
from qppengine.model_file import load_graph, serialize
from qppengine.session import SCHEMES

if TYPE_CHECKING:
    from random import Random

MAX_MACS, MAX_ELEMENTS = 10**7, 10**6  # of a network that is run


def seeds() -> list[bytes]:
    """A network of all operations, calibrated and not, and small ones that mutants seldom break."""
    graph = everything()
    rng = np.random.default_rng(4)
    samples = [rng.random((1, 3, 16, 20), np.float32) for _ in range(8)]
    small = qe.GraphBuilder("small")
    x = small.input("x", (None, 3, None, None))
    y = small.conv2d(x, np.ones((4, 3, 3, 3), np.float32), padding=1, activation="relu")
    small.output(small.conv2d(small.max_pool2d(y, 2), np.ones((4, 4, 3, 3), np.float32)))
    files = []
    for network in (graph, small.build()):
        files.append(serialize(network))
        files.append(serialize(network, qe.fit(qe.calibrate(network, samples, progress=False))))
    return files


def mutate(data: bytes, rng: Random) -> bytes:
    """Alters bytes, the header, or the graph in it."""
    kind = rng.randrange(8)
    if kind == 0:
        return alter_bytes(data, rng)
    length = int.from_bytes(data[:8], "little")
    try:
        header = json.loads(data[8 : 8 + length])
        graph = json.loads(header["__metadata__"]["graph"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return alter_bytes(data, rng)
    tensors = data[8 + length :]
    text = json.dumps(header).encode()
    if kind == 1:
        text = alter_bytes(text, rng)
    elif kind == 2:
        alter_json(header, rng)
        text = json.dumps(header).encode()
    elif kind == 3:
        tensors = alter_bytes(tensors, rng)
    else:
        if isinstance(graph, (dict, list)):
            alter_json(graph, rng)
        header["__metadata__"]["graph"] = json.dumps(graph)
        text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + tensors


def attempt(data: bytes) -> None:
    """Loads a file in every scheme there is, and runs it where that costs little."""
    graph = load_graph(data)
    sessions = [qe.Session(data, "fp16")]
    if "quantization" in json.loads(qe.session.read_model(data)[0]):
        sessions += [qe.Session(data, scheme) for scheme in SCHEMES[1:]]
        sessions.append(qe.Session(data, "dynamic", density=0.03))
    for session in sessions:
        shapes = [fill(value.shape) for value in graph.inputs]
        session.prepare(*shapes)
        elements = sum(math.prod(shape) for shape in shapes)
        macs = sum(step["macs"] for step in session.explain())
        if macs <= MAX_MACS and elements + session.memory()["arena"] <= MAX_ELEMENTS:
            session.run(*(np.ones(shape, np.float32) for shape in shapes))


def fill(shape: tuple[int | None, ...]) -> Any:
    """A shape of small sizes where any may be."""
    sizes = zip(shape, (1, 3, 16, 20), strict=True)
    return tuple(size if known is None else known for known, size in sizes)


if __name__ == "__main__":
    main(Target("qpp", seeds, mutate, attempt))
