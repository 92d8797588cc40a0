# SPDX-License-Identifier: Apache-2.0
"""Rewrites of a graph that keep what it computes and make it what the engine runs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from qppengine.errors import ModelError
from qppengine.graph import ACTIVATIONS, BINARY_ACTIVATIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from qppengine.graph import Array, Graph, Node


def optimize(graph: Graph) -> Graph:
    """All passes, each making room for the next. Idempotent."""
    return fuse_activations(fold_flatten(fold_batch_norm(drop_identities(graph))))


def keep_fp16(
    graph: Graph,
    modules: Sequence[str] = (),
    *,
    skip_first: bool = False,
    skip_last: bool = False,
) -> Graph:
    """The optimized graph, some nodes of which read fp16 in quantized runs, too.

    Args:
        graph: The network.
        modules: Names of nodes, or of modules, all nodes of which are meant. What is merged into a
            convolution (batch normalization, activation) goes by the name of the convolution.
        skip_first: Whether to keep the convolutions that no other comes before.
        skip_last: Whether to keep the convolutions and linear layers that no other comes after.

    Raises `ModelError` for names that the network does not have.
    """
    graph = optimize(graph)
    names = [node.name for node in graph.nodes]
    kept: set[str] = set()
    unknown = []
    for module in modules:
        inside = [name for name in names if name == module or name.startswith(f"{module}.")]
        kept.update(inside)
        if not inside:
            unknown.append(module)
    if unknown:
        raise ModelError(
            f"modules to keep in fp16: the network has no {', '.join(map(repr, unknown))}, "
            f"its nodes are {', '.join(names)}"
        )
    convolutions = [node for node in graph.nodes if node.op == "conv2d"]
    if skip_first:
        behind = _reached(graph.nodes, {node.output for node in convolutions})
        kept.update(node.name for node in convolutions if behind.isdisjoint(node.inputs))
    if skip_last:
        in_front = {value for node in convolutions for value in node.inputs}
        for node in reversed(graph.nodes):
            if node.output in in_front:
                in_front.update(node.inputs)
        kept.update(node.name for node in convolutions if node.output not in in_front)
    nodes = (replace(node, fp16=True) if node.name in kept else node for node in graph.nodes)
    return replace(graph, nodes=tuple(nodes))


def _reached(nodes: Sequence[Node], values: set[str]) -> set[str]:
    """`values` and all that are computed from them."""
    reached = set(values)
    for node in nodes:
        if not reached.isdisjoint(node.inputs):
            reached.add(node.output)
    return reached


def drop_identities(graph: Graph) -> Graph:
    """Removes what changes nothing, save where it gives an input or an output a second name.

    That is activations "none", and flattening of single pixels.
    """
    named = {value.name for value in graph.inputs} | set(graph.outputs)
    renamed: dict[str, str] = {}
    nodes = []
    for node in graph.nodes:
        inputs = tuple(renamed.get(value, value) for value in node.inputs)
        is_identity = (node.op == "activation" and node.attributes["activation"] == "none") or (
            node.op == "flatten" and graph.shapes[node.inputs[0]][2:] == (1, 1)
        )
        if is_identity and not (node.output in graph.outputs and inputs[0] in named):
            renamed[node.output] = inputs[0]
            if node.output in graph.outputs:
                named.add(inputs[0])
        else:
            nodes.append(replace(node, inputs=inputs))
    outputs = tuple(renamed.get(value, value) for value in graph.outputs)
    return replace(graph, nodes=tuple(nodes), outputs=outputs)


def fold_batch_norm(graph: Graph) -> Graph:
    """Merges each batch normalization into the convolution before it: free at run time.

    One that does not directly follow a convolution of its own becomes a 1x1 convolution.
    """

    def fold(conv: Node, node: Node) -> Node | None:
        if node.op != "batch_norm":
            return None
        gain, shift = _affine(node)
        bias = conv.tensors.get("bias", np.float32(0))
        weight = conv.tensors["weight"] * gain[:, None, None, None]
        return replace(conv, tensors=_as_float32(weight=weight, bias=bias * gain + shift))

    folded = _merge(graph, ("conv2d",), fold)
    nodes = (_as_convolution(n) if n.op == "batch_norm" else n for n in folded.nodes)
    return replace(folded, nodes=tuple(nodes))


def _affine(node: Node) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Gain and shift by channel, a batch normalization being x * gain + shift."""
    mean, var, weight, bias = (
        node.tensors[key].astype(np.float64) for key in ("mean", "var", "weight", "bias")
    )
    gain = weight / np.sqrt(var + node.attributes["eps"])
    return gain, bias - mean * gain


def _as_convolution(node: Node) -> Node:
    gain, shift = _affine(node)
    attributes = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "activation": "none"}
    tensors = _as_float32(weight=np.diag(gain)[:, :, None, None], bias=shift)
    return replace(node, op="conv2d", attributes=attributes, tensors=tensors)


def _as_float32(**tensors: npt.NDArray[np.float64]) -> dict[str, Array]:
    return {name: tensor.astype(np.float32) for name, tensor in tensors.items()}


def fuse_activations(graph: Graph) -> Graph:
    """Merges each activation into the node before it, which applies it as it stores."""

    def fuse(producer: Node, node: Node) -> Node | None:
        if node.op != "activation":
            return None
        known = ACTIVATIONS if producer.op == "conv2d" else BINARY_ACTIVATIONS
        if node.attributes["activation"] not in known:
            return None
        return replace(producer, attributes={**producer.attributes, **node.attributes})

    return _merge(graph, ("conv2d", "add", "sub", "mul"), fuse)


def fold_flatten(graph: Graph) -> Graph:
    """Lets a linear layer behind a flattening read the image: a convolution as large as that."""
    sources = {node.output: node.inputs[0] for node in graph.nodes if node.op == "flatten"}
    nodes = []
    for node in graph.nodes:
        source = sources.get(node.inputs[0])
        plain = not any(node.attributes.get("padding", ())) and "groups" not in node.attributes
        if node.op != "conv2d" or source is None or not plain:
            nodes.append(node)
            continue
        weight = node.tensors["weight"]  # of one pixel, for the flattened image is one
        shaped = weight.reshape(len(weight), *(graph.shapes[source][1:]))
        tensors = {**node.tensors, "weight": np.ascontiguousarray(shaped)}
        nodes.append(replace(node, inputs=(source,), tensors=tensors))
    needed = {name for node in nodes for name in node.inputs} | set(graph.outputs)
    kept = (node for node in nodes if node.op != "flatten" or node.output in needed)
    return replace(graph, nodes=tuple(kept))


def _merge(graph: Graph, ops: Sequence[str], merge: Callable[[Node, Node], Node | None]) -> Graph:
    """Replaces a node of `ops` and its reader by ``merge(node, reader)`` unless that is None.

    Offered are nodes without an activation yet whose output nobody else reads. The merged node
    keeps the first one's name and output.
    """
    nodes: dict[str, Node] = {}  # by output
    renamed: dict[str, str] = {}
    for original in graph.nodes:
        node = replace(original, inputs=tuple(renamed.get(v, v) for v in original.inputs))
        source = node.inputs[0]
        producer = nodes.get(source)
        merged = None
        if (
            producer is not None
            and producer.op in ops
            and producer.attributes.get("activation", "none") == "none"
            and graph.consumers[original.inputs[0]] == (original,)
            and original.inputs[0] not in graph.outputs
        ):
            merged = merge(producer, node)
        if merged is None:
            nodes[node.output] = node
        else:
            nodes[source] = merged
            renamed[node.output] = source
    outputs = tuple(renamed.get(value, value) for value in graph.outputs)
    return replace(graph, nodes=tuple(nodes.values()), outputs=outputs)
