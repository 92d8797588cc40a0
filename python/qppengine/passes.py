# SPDX-License-Identifier: Apache-2.0
"""Rewrites a graph into an equivalent one that the engine can run."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from qppengine.errors import ModelError, expect_list, expect_type
from qppengine.graph import Graph, unique_name
from qppengine.ir import Node, channels_of, sides
from qppengine.limits import DEFAULT_LIMITS, Limits
from qppengine.operations import OPERATIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from qppengine.ir import Array


def optimize(graph: Graph, limits: Limits = DEFAULT_LIMITS) -> Graph:
    """All passes, each making room for the next. Outputs keep their names. Idempotent.

    Raises `ModelError` where transposed convolutions would become larger than `limits` allow.
    """
    expect_type("graph", graph, Graph, "a Graph")
    expect_type("limits", limits, Limits, "a Limits object")
    plain = fold_padding(fold_flatten(fold_batch_norm(drop_identities(simplify(graph)))))
    lowered = lower_transposed_convolutions(fuse_activations(plain), limits)
    fused = fuse_residuals(lowered)
    return name_outputs(fused, fused.outputs, graph.outputs)


def name_outputs(graph: Graph, values: Sequence[str], names: Sequence[str]) -> Graph:
    """The same network with `values` as its outputs, by other names.

    Another value of such a name gets a new one. An output that is an input, or an output by another
    name as well, becomes a copy.
    """
    if graph.outputs == tuple(names) == tuple(values):
        return graph
    inputs = {value.name for value in graph.inputs}
    renamed: dict[str, str] = {}
    copies = []
    for value, name in zip(values, names, strict=True):
        if value not in renamed and (value == name or value not in inputs):
            renamed[value] = name
        else:
            copies.append((value, name))
    taken = {*names, *graph.shapes}
    for name in sorted(set(names).intersection(graph.shapes).difference(renamed, inputs)):
        renamed[name] = unique_name(name, taken)
        taken.add(renamed[name])
    nodes = [
        replace(
            node,
            inputs=tuple(renamed.get(value, value) for value in node.inputs),
            output=renamed.get(node.output, node.output),
        )
        for node in graph.nodes
    ]
    used = {node.name for node in graph.nodes}
    for value, name in copies:
        own = unique_name(name, used)
        source = (renamed.get(value, value),)
        nodes.append(Node("activation", own, source, name, {"activation": "none"}))
        used.add(own)
    return replace(graph, nodes=tuple(nodes), outputs=tuple(names))


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
            convolution (batch normalization, sum, activation) goes by the name of the convolution.
        skip_first: Whether to keep the convolutions that no other comes before.
        skip_last: Whether to keep the convolutions and linear layers that no other comes after.

    Raises `ModelError` for names that the network does not have.
    """
    graph = optimize(graph)
    modules = expect_list("modules to keep in fp16", modules, str, "a list of names")
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
        later = _reached(graph.nodes, {node.output for node in convolutions})
        kept.update(node.name for node in convolutions if later.isdisjoint(node.inputs))
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


def simplify(graph: Graph) -> Graph:
    """Replaces nodes by equivalent ones that cost less, such as a power of 2 by a product."""
    nodes = (OPERATIONS[node.op].simplify(node) for node in graph.nodes)
    return replace(graph, nodes=tuple(nodes))


def drop_identities(graph: Graph) -> Graph:
    """Removes nodes without effect: activations "none", and flattening of single pixels.

    Nodes that give an input or an output a second name stay.
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
    """Merges each batch normalization or negation into the convolution before it.

    One that does not directly follow a convolution of its own becomes one of every channel by
    itself.
    """

    def fold(producer: Node, node: Node) -> Node | None:
        if producer.op not in ("conv2d", "conv_transpose2d", "batch_norm"):
            return None
        if node.op not in ("batch_norm", "neg") or len(producer.inputs) > 1:
            return None
        gain, shift = _affine(node, channels_of(graph.shapes[producer.output]))
        if producer.op == "batch_norm":
            first_gain, first_shift = _affine(producer, len(gain))
            return _as_batch_norm(producer, first_gain * gain, first_shift * gain + shift)
        bias = producer.tensors.get("bias", np.float32(0))
        weight = producer.tensors["weight"]
        if producer.op == "conv2d":
            scaled = weight * gain[:, None, None, None]
        else:  # filters of a group on axis 1
            groups = producer.attributes.get("groups", 1)
            parts = weight.reshape(groups, -1, *weight.shape[1:])
            scaled = (parts * gain.reshape(groups, 1, -1, 1, 1)).reshape(weight.shape)
        return replace(producer, tensors=_as_float32(weight=scaled, bias=bias * gain + shift))

    folded = _merge(graph, fold)
    nodes = (_as_convolution(n) if n.op == "batch_norm" else n for n in folded.nodes)
    return replace(folded, nodes=tuple(nodes))


def _affine(node: Node, channels: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Gain and shift by channel: a batch normalization is x * gain + shift, and so is -x."""
    if node.op == "neg":
        return np.full(channels, -1.0), np.zeros(channels)
    mean, var, weight, bias = (
        node.tensors[key].astype(np.float64) for key in ("mean", "var", "weight", "bias")
    )
    gain = weight / np.sqrt(var + node.attributes["eps"])
    return gain, bias - mean * gain


def _as_batch_norm(
    node: Node, gain: npt.NDArray[np.float64], shift: npt.NDArray[np.float64]
) -> Node:
    zeros, ones = np.zeros_like(gain), np.ones_like(gain)
    tensors = _as_float32(weight=gain, bias=shift, mean=zeros, var=ones)
    return replace(node, attributes={"eps": 0}, tensors=tensors)


def _as_convolution(node: Node) -> Node:
    gain, shift = _affine(node, len(node.tensors["weight"]))
    attributes = {
        "stride": (1, 1),
        "padding": (0, 0),
        "dilation": (1, 1),
        **({} if len(gain) == 1 else {"groups": len(gain)}),
        "activation": "none",
    }
    tensors = _as_float32(weight=gain[:, None, None, None], bias=shift)
    return replace(node, op="conv2d", attributes=attributes, tensors=tensors)


def _as_float32(**tensors: npt.NDArray[np.float64]) -> dict[str, Array]:
    return {name: tensor.astype(np.float32) for name, tensor in tensors.items()}


def fuse_activations(graph: Graph) -> Graph:
    """Merges each activation into the node before it, which applies it as it stores."""

    def fuse(producer: Node, node: Node) -> Node | None:
        if node.op != "activation":
            return None
        return OPERATIONS[producer.op].fuse_activation(producer, node.attributes)

    return _merge(graph, fuse)


_MAX_TERMS = 64  # of a sum that is fused


def fuse_residuals(graph: Graph) -> Graph:
    """Fuses additions into convolutions: the other operand becomes the residual of a convolution.

    The convolution's output must have no other reader. If both operands are outputs of such
    convolutions, the later one adds, so that the other's output is complete. In a longer sum each
    convolution adds one term: if the convolution before an addition already has a residual, the
    convolution that computes this residual adds the other term, if it can.
    """
    nodes: dict[str, Node] = {}  # by output
    places: dict[str, int] = {}  # which of `nodes` was put there later
    clock = itertools.count()
    renamed: dict[str, str] = {}
    readers = Counter(value for node in graph.nodes for value in node.inputs)
    kept = set(graph.outputs)

    def find_chain(value: str, fp16: bool) -> list[Node]:
        """Convolutions each of which adds the next one's output; the last adds nothing yet."""
        found: list[Node] = []
        while True:
            node = nodes.get(value)
            if (
                node is None
                or node.op != "conv2d"
                or node.attributes["activation"] != "none"
                or node.attributes.get("groups", 1) != 1
                or node.fp16 != fp16
                or readers[value] != 1
                or value in kept
            ):
                return []
            found.append(node)
            if len(node.inputs) == 1:
                return found
            if len(found) == _MAX_TERMS:
                return []
            value = node.inputs[1]

    for original in graph.nodes:
        node = replace(original, inputs=tuple(renamed.get(v, v) for v in original.inputs))
        found: list[Node] = []
        other = ""
        if node.op == "add" and len({graph.shapes[value] for value in original.inputs}) == 1:
            for value, second in (node.inputs, node.inputs[::-1]):
                other_found = find_chain(value, node.fp16)
                if other_found and (
                    not found or places[other_found[-1].output] > places[found[-1].output]
                ):
                    found, other = other_found, second
        if not found:
            nodes[node.output] = node
            places[node.output] = next(clock)
            continue
        # All move to the place of the sum, where the other term is known.
        *above, last = found
        above = [*above, replace(last, inputs=(*last.inputs, other))]
        above[0] = replace(above[0], attributes={**above[0].attributes, **node.attributes})
        for merged in reversed(above):
            del nodes[merged.output]
            nodes[merged.output] = merged
            places[merged.output] = next(clock)
        value = above[0].output
        renamed[node.output] = value
        readers[value] = readers[original.output]
        if original.output in kept:
            kept.add(value)
    outputs = tuple(renamed.get(value, value) for value in graph.outputs)
    return replace(graph, nodes=tuple(nodes.values()), outputs=outputs)


def lower_transposed_convolutions(graph: Graph, limits: Limits = DEFAULT_LIMITS) -> Graph:
    """Writes transposed convolutions as convolutions whose channels become pixels.

    Output pixels at distances of a stride depend on the same taps of the kernel: one convolution
    computes all such sets as channels, and a pixel shuffle interleaves them. Surplus pixels at the
    bottom and on the right are cropped.
    """
    nodes: list[Node] = []
    added = 0
    for node in graph.nodes:
        if node.op == "conv_transpose2d":
            added += _lowered_bytes(node) - 4 * node.tensors["weight"].nbytes
            limits.check("computed_bytes", added, f"{node.name}: the weight, a set for each stride")
        nodes += _lowered(node) if node.op == "conv_transpose2d" else [node]
    return replace(graph, nodes=tuple(nodes))


class _Phases(NamedTuple):
    """One axis of a transposed convolution: taps[p][j] of its kernel, if any, is tap j of phase p.

    Output i * stride + p is the sum over j of tap j times input i + j - before.
    """

    taps: list[list[int | None]]
    before: int  # padding
    after: int
    cut: int  # outputs too many


def _phases(taps: int, stride: int, padding: int, more: int, dilation: int) -> _Phases:
    places = {
        (p, (p + padding - k * dilation) // stride): k
        for p in range(stride)
        for k in range(taps)
        if (p + padding - k * dilation) % stride == 0
    }
    first = min(0, *(offset for _, offset in places))
    last = max(0, *(offset for _, offset in places))
    # The output has n * stride + rest elements.
    rest = dilation * (taps - 1) + 1 + more - 2 * padding - stride
    after = max(0, -(-rest // stride) + last)
    return _Phases(
        [[places.get((p, offset)) for offset in range(first, last + 1)] for p in range(stride)],
        -first,
        after,
        (after - last) * stride - rest,
    )


def _lowered_bytes(node: Node) -> int:
    """At least as many as the weight takes that `_lowered` makes."""
    size = node.tensors["weight"].nbytes
    for axis in (0, 1):
        stride, padding, dilation = (
            node.attributes[key][axis] for key in ("stride", "padding", "dilation")
        )
        taps = node.tensors["weight"].shape[2 + axis]
        first = min(0, (padding - (taps - 1) * dilation) // stride)
        last = (padding + stride - 1) // stride
        size = -(-size // taps) * (last - first + 1) * stride
    return size


def _lowered(node: Node) -> list[Node]:
    """Nodes that are equivalent to a transposed convolution; the last one has its name."""
    weight = node.tensors["weight"]
    channels, filters, *kernel = weight.shape
    groups = node.attributes.get("groups", 1)
    stride = node.attributes["stride"][0]
    keys = ("stride", "padding", "output_padding", "dilation")
    rows, columns = (
        _phases(kernel[axis], *(node.attributes[key][axis] for key in keys)) for axis in (0, 1)
    )
    shape = (groups, filters, stride, stride, channels // groups)
    phases = np.zeros((*shape, len(rows.taps[0]), len(columns.taps[0])), np.float32)
    by_group = weight.reshape(groups, channels // groups, filters, *kernel)
    for p, i in np.ndindex(stride, len(rows.taps[0])):
        for q, j in np.ndindex(stride, len(columns.taps[0])):
            ky, kx = rows.taps[p][i], columns.taps[q][j]
            if ky is not None and kx is not None:
                phases[:, :, p, q, :, i, j] = by_group[..., ky, kx].swapaxes(1, 2)
    tensors = {"weight": phases.reshape(-1, channels // groups, *phases.shape[5:])}
    if "bias" in node.tensors:
        tensors["bias"] = np.repeat(node.tensors["bias"], stride**2)
    attributes = {
        **{key: value for key, value in node.attributes.items() if key != "output_padding"},
        "stride": (1, 1),
        "padding": (rows.before, columns.before, rows.after, columns.after),
        "dilation": (1, 1),
    }
    parts = [Node("conv2d", "", node.inputs, "", attributes, tensors)]
    if stride > 1:
        parts.append(Node("pixel_shuffle", "", (), "", {"upscale_factor": stride}))
    if rows.cut or columns.cut:
        padding = (0, 0, -rows.cut, -columns.cut)
        parts.append(Node("pad", "", (), "", {"padding": padding, "mode": "zeros"}))
    names = [f"{node.name}.{part.op}" for part in parts[:-1]] + [node.output]
    sources = [node.inputs, *((name,) for name in names[:-1])]
    return [
        replace(part, name=name, inputs=source, output=name)
        for part, name, source in zip(parts, names, sources, strict=True)
    ]


def fold_flatten(graph: Graph) -> Graph:
    """Lets a linear layer after a flattening read the image, as a convolution of its size."""
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
        nodes.append(replace(node, inputs=(source, *node.inputs[1:]), tensors=tensors))
    return replace(graph, nodes=_without_unread(graph, nodes, "flatten"))


def fold_padding(graph: Graph) -> Graph:
    """Lets convolutions do the zero padding that precedes them."""
    pads = {
        node.output: node
        for node in graph.nodes
        if node.op == "pad"
        and node.attributes["mode"] == "zeros"
        and min(node.attributes["padding"]) >= 0
    }
    nodes = []
    for node in graph.nodes:
        pad = pads.get(node.inputs[0])
        if node.op == "conv2d" and pad is not None:
            both = zip(pad.attributes["padding"], sides(node.attributes["padding"]), strict=True)
            attributes = {**node.attributes, "padding": tuple(a + b for a, b in both)}
            inputs = (*pad.inputs, *node.inputs[1:])
            nodes.append(replace(node, inputs=inputs, attributes=attributes))
        else:
            nodes.append(node)
    return replace(graph, nodes=_without_unread(graph, nodes, "pad"))


def _without_unread(graph: Graph, nodes: Sequence[Node], op: str) -> tuple[Node, ...]:
    """`nodes` less those of `op` that nobody reads."""
    needed = {name for node in nodes for name in node.inputs} | set(graph.outputs)
    return tuple(node for node in nodes if node.op != op or node.output in needed)


def _merge(graph: Graph, merge: Callable[[Node, Node], Node | None]) -> Graph:
    """Replaces a node and its only reader by ``merge(node, reader)`` unless that is None.

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
