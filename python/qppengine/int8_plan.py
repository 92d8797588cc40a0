# SPDX-License-Identifier: Apache-2.0
"""Which nodes read int8 in a quantized run, and which values share quantization parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from qppengine.ir import Node


class Int8Plan(NamedTuple):
    """What a quantized run holds in int8.

    ``int8_inputs``: for each node, how many of its inputs it reads in int8: the first ones.
    ``groups``: for each value in int8, the value whose quantization parameters it uses.
    """

    int8_inputs: Sequence[int]
    groups: Mapping[str, str]


# Operations whose int8 output has the quantization parameters of the input, and all that read int8
# where their output is wanted in int8.
_SHARES_QPARAMS = frozenset(
    {
        "max_pool2d",
        "adaptive_max_pool2d",
        "slice",
        "pad",
        "resize",
        "flatten",
        "rearrange",
        "pixel_shuffle",
        "pixel_unshuffle",
    }
)
_PROPAGATES_INT8 = _SHARES_QPARAMS | {
    "conv2d",
    "add",
    "sub",
    "mul",
    "avg_pool2d",
    "global_avg_pool",
    "adaptive_avg_pool2d",
    "concat",
}


def plan_int8(nodes: Sequence[Node]) -> Int8Plan:
    """Plans the int8 values: inputs of convolutions and of operations that propagate int8."""
    counts = [0] * len(nodes)
    wanted: set[str] = set()
    for index, node in reversed([*enumerate(nodes)]):
        propagates = node.op in _PROPAGATES_INT8 and node.output in wanted
        if not node.fp16 and (_asks_for_int8(node) or propagates):
            counts[index] = len(node.inputs) if propagates else 1
            wanted.update(node.inputs[: counts[index]])
    groups = {value: value for value in wanted}
    for node, count in zip(nodes, counts, strict=True):
        if count and node.op in _SHARES_QPARAMS and node.output in wanted:
            groups[node.output] = groups[node.inputs[0]]
    return Int8Plan(counts, groups)


def _asks_for_int8(node: Node) -> bool:
    """Convolutions read int8, except those that only scale and shift channels: they propagate."""
    if node.op != "conv2d":
        return False
    filters, *kernel = node.tensors["weight"].shape
    return kernel != [1, 1, 1] or filters != node.attributes.get("groups", 1)
