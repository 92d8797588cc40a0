# SPDX-License-Identifier: Apache-2.0
"""Graphs as Graphviz text: ``dot -Tsvg graph.dot`` draws them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from qppengine.errors import expect_type
from qppengine.graph import Graph

if TYPE_CHECKING:
    from qppengine.ir import Shape

# For values that quantized runs hold in int8.
_INT8 = 'color="#1f5fa8", penwidth=2'


def to_dot(graph: Graph) -> str:
    """The graph as text: boxes are operations, arrows are values with their shapes.

    Blue arrows are read in int8 by quantized runs, black ones in fp16.
    """
    expect_type("graph", graph, Graph, "a Graph")
    lines = [f"digraph {_quote(graph.name)} {{", "  node [shape=box];"]
    sources = {value.name: f"input {value.name}" for value in graph.inputs}
    lines += [
        f"  {_quote(box)} [label={_quote(value.name)}, shape=ellipse];"
        for value, box in zip(graph.inputs, sources.values(), strict=True)
    ]
    for node in graph.nodes:
        activation = node.attributes.get("activation", "none")
        kinds = [node.op]
        if node.op == "conv2d" and len(node.inputs) > 1:
            kinds.append("add")
        if activation != "none":
            kinds.append(activation)
        label = _quote("\n".join((node.name, ", ".join(kinds))))
        lines.append(f"  {_quote(node.name)} [label={label}];")
        for index, value in enumerate(node.inputs):
            style = f", {_INT8}" if graph.reads_int8(node, index) else ""
            label = _quote(_text(graph.shapes[value]))
            lines.append(
                f"  {_quote(sources[value])} -> {_quote(node.name)} [label={label}{style}];"
            )
        sources[node.output] = node.name
    for value in graph.outputs:
        box = _quote(f"output {value}")
        label = _quote(_text(graph.shapes[value]))
        lines.append(f"  {box} [label={_quote(value)}, shape=ellipse];")
        lines.append(f"  {_quote(sources[value])} -> {box} [label={label}];")
    return "\n".join([*lines, "}", ""])


def _text(shape: Shape) -> str:
    return "x".join("?" if size is None else str(size) for size in shape)


def _quote(text: str) -> str:
    """A string of the language, whose escapes are those of JSON."""
    return json.dumps(text, ensure_ascii=False)
