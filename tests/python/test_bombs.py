# SPDX-License-Identifier: Apache-2.0
"""What refusing a file costs: no more than 64 MB + 8n of memory, and 2 s + linear time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import qppengine as qe

FUZZERS = Path(__file__).resolve().parents[1] / "fuzz"


def pack(header: dict[str, Any] | str, data: bytes = b"") -> bytes:
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    return len(text).to_bytes(8, "little") + text + data


def model(nodes: list[Any], outputs: list[str], weight: Any = None, **graph: Any) -> bytes:
    """A model file of these nodes; of the one weight all may read."""
    document = {
        "name": "g",
        "inputs": [{"name": "x", "shape": [1, 8, None, None]}],
        "outputs": outputs,
        "nodes": nodes,
        **graph,
    }
    meta = {"format": "qppengine", "format_version": "1", "graph": json.dumps(document)}
    header: dict[str, Any] = {"__metadata__": meta}
    data = b""
    if weight is not None:
        data = weight.astype(np.float16).tobytes()
        header["w"] = {"dtype": "F16", "shape": weight.shape, "data_offsets": [0, len(data)]}
    return pack(header, data)


def node(index: int, source: str, op: str = "sigmoid", **attributes: Any) -> dict[str, Any]:
    return {
        "op": op,
        "name": f"n{index}",
        "inputs": [source],
        "output": f"n{index}",
        "attributes": attributes,
        "tensors": {"weight": "w"} if op == "conv2d" else {},
    }


def conv(index: int, source: str) -> dict[str, Any]:
    return node(
        index, source, "conv2d", stride=[1, 1], padding=[0, 0], dilation=[1, 1], activation="none"
    )


def graph_text(text: str) -> bytes:
    """A file with this graph, which need not be JSON."""
    return pack({"__metadata__": {"format": "qppengine", "format_version": "1", "graph": text}})


def overlapping_tensors() -> bytes:
    entry = {"dtype": "F16", "shape": [1 << 20], "data_offsets": [0, 2 << 20]}
    return pack({f"t{i}": entry for i in range(1000)}, bytes(2 << 20))


def many_tensors() -> bytes:
    entry = {"dtype": "F16", "shape": [], "data_offsets": [0, 2]}
    return pack({f"t{i}": entry for i in range(100_000)}, bytes(2))


def shared_tensor() -> bytes:
    return model([conv(i, "x") for i in range(3000)], ["n0"], np.ones((512, 8, 9, 9)))


def wide_tensor() -> bytes:
    return model([conv(i, "x") for i in range(8)], ["n0"], np.ones((1, 1, 1000, 1000)))


NODES = qe.Limits().nodes
BOMBS = {
    "tensors that overlap": (overlapping_tensors, "begin at"),
    "many tensors": (many_tensors, "begin at"),
    "a tensor of many nodes": (shared_tensor, "sharing = 2"),
    "a tensor that grows when packed": (wide_tensor, "packing = 16"),
    "deep lists in the header": (lambda: pack("[" * 4_000_000), "nesting = 64"),
    "a deep dtype": (
        lambda: pack('{"a":{"dtype":' + "[" * 10**6 + "]" * 10**6 + ',"shape":[]}}'),
        "nesting = 64",
    ),
    "a long dtype": (
        lambda: pack({"a": {"dtype": "x" * 10**7, "shape": [], "data_offsets": [0, 0]}}),
        r"got 'x{64}\.\.\.'",
    ),
    "deep lists in the graph": (lambda: graph_text("[" * 4_000_000), "nesting = 64"),
    "small lists": (lambda: graph_text('{"name":[' + "[]," * 3_000_000 + "[]]}"), "json_values"),
    "small lists as a node": (
        lambda: graph_text('{"nodes":[[' + "[]," * 3_000_000 + "[]]]}"),
        "json_values",
    ),
    "members": (
        lambda: graph_text('{"nodes":{' + ",".join(f'"{i}":0' for i in range(10**6)) + "}}"),
        "json_values",
    ),
    "many nodes": (
        lambda: model([node(i, "x") for i in range(NODES + 1)], ["n0"]),
        f"nodes = {NODES}",
    ),
    "many outputs": (
        lambda: model([node(i, "x") for i in range(20_000)], [f"n{i}" for i in range(20_000)]),
        "outputs = 4096",
    ),
    "many nodes and a fault at the end": (
        lambda: model([node(i, "x") for i in range(NODES - 1)] + [node(NODES - 1, "y")], ["n0"]),
        "'y' is not defined",
    ),
    "a long name": (lambda: model([node(0, "x" * 10**7)], ["n0"]), "name_bytes = 4096"),
    "a graph that is not JSON": (lambda: graph_text("x" * 10**7), "is not JSON"),
}

SCRIPT = """
import sys
from driver import MEGABYTE, Target, measure
import qppengine as qe
data = open(sys.argv[1], "rb").read()
outcome = measure(Target("qpp", list, None, lambda file: qe.Session(file, "fp16")), data)
print(outcome.problem(len(data)) or outcome.message)
"""


@pytest.mark.parametrize("name", BOMBS)
def test_refusing_costs_little(name: str, tmp_path: Path) -> None:
    make, message = BOMBS[name]
    path = tmp_path / "bomb.qpp"
    path.write_bytes(make())
    # In a process of its own, whose memory is not that of other tests.
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT, path],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(FUZZERS)},
    )
    assert ended.returncode == 0, ended.stderr
    with pytest.raises(qe.ModelError, match=message):
        raise qe.ModelError(ended.stdout)
    assert len(ended.stdout) < 1000


@pytest.mark.parametrize("kind", ["chain", "outputs", "concat"])
def test_many_nodes_run(kind: str) -> None:
    """Time grows with the number of nodes, not with its square."""
    count = 4000 if kind == "outputs" else NODES - 1
    nodes = [node(i, "x" if i == 0 or kind != "chain" else f"n{i - 1}") for i in range(count)]
    outputs = [f"n{count - 1}"]
    if kind == "outputs":
        outputs = [item["output"] for item in nodes]
    if kind == "concat":
        nodes.append({**node(count, "", "concat"), "inputs": [item["output"] for item in nodes]})
        outputs = [f"n{count}"]
    session = qe.Session(model(nodes, outputs), "fp16")
    x = np.full((1, 8, 1, 1), 0.5, np.float32)
    first = session.run(x, outputs=session.outputs)[0]
    assert np.isfinite(first).all()
    graph = qe.load_graph(model(nodes[:5000], ["n0"]))
    assert len(graph.consumers) == len(graph.nodes) + 1
