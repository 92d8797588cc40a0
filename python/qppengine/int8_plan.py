# SPDX-License-Identifier: Apache-2.0
"""Which nodes read int8 in a quantized run, and which values share quantization parameters.

The engine has the rule; graphs ask it, so that both always agree.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

from qppengine import _core

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


def plan_int8(nodes: Sequence[Node]) -> Int8Plan:
    """The plan of the engine for nodes in the order in which they run."""
    fields = [
        {
            "op": node.op,
            "name": node.name,
            "inputs": node.inputs,
            "output": node.output,
            "fp16": node.fp16,
            "attributes": node.attributes,
            "tensor_shapes": {key: tensor.shape for key, tensor in node.tensors.items()},
        }
        for node in nodes
    ]
    plan = _core.plan_int8(json.dumps(fields))
    return Int8Plan(plan["int8_inputs"], plan["groups"])
