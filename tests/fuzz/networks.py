# SPDX-License-Identifier: Apache-2.0
"""Networks that mutants of model files come from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import qppengine as qe
from qppengine.ir import Node
from qppengine.operations.elementwise import UNARY

if TYPE_CHECKING:
    from qppengine.ir import Array
    from qppengine.operations.schema import OpSchema

MAX_MAGNITUDE = 8


def unary(net: qe.GraphBuilder, x: str, schema: OpSchema) -> str:
    """An activation with default attributes; of a sigmoid if its results can be large or NaN."""
    defaults = {name: n for source in schema.sources for name, n in source.defaults.items()}
    attributes: dict[str, Any] = {
        name: float(defaults.get(name, 1.5)) for name in schema.attributes
    }
    node = Node(schema.name, schema.name, ("x",), "y", attributes)
    results = schema.compute(node, np.linspace(-4, 4, 9, dtype=np.float32))
    if not np.all(np.abs(results) < MAX_MAGNITUDE):
        x = net.unary(x, "sigmoid")
    return net.unary(x, schema.name, **attributes)


def everything() -> qe.Graph:
    """A network of every operation of model files, for images of 3 channels."""
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
    gate = net.global_avg_pool(y)
    for schema in UNARY:
        gate = unary(net, gate, schema)
    y = net.mul(y, gate)
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
    return net.build()
