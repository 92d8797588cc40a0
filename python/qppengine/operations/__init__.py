# SPDX-License-Identifier: Apache-2.0
"""The operations of a `Graph`. Each is defined in one place, as an `OpSchema`.

All tensors are float32 images ``[N, C, H, W]``. Attributes for the axes of an image are pairs,
height and width, except that ``padding`` may have four sides: top, left, bottom, right.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qppengine.operations import (
    activation,
    arrangement,
    channels,
    convolution,
    elementwise,
    pooling,
    resize,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from qppengine.ir import Node, Shape
    from qppengine.operations.schema import OpSchema, SourceOperator


def _by_target() -> Mapping[str, Sequence[tuple[OpSchema, SourceOperator]]]:
    table: dict[str, list[tuple[OpSchema, SourceOperator]]] = {}
    for schema in OPERATIONS.values():
        for source in schema.sources:
            table.setdefault(source.target, []).append((schema, source))
    return table


OPERATIONS: Mapping[str, OpSchema] = {
    schema.name: schema
    for family in (convolution, activation, elementwise, channels, pooling, arrangement, resize)
    for schema in family.OPERATIONS
}

# The operators of PyTorch and ONNX that schemas state, and the operations that they are.
SOURCES: Mapping[str, Sequence[tuple[OpSchema, SourceOperator]]] = _by_target()


def node_problems(node: Node) -> Iterator[str]:
    """What is wrong with a node by itself, whatever its inputs are."""
    if node.op in OPERATIONS:
        yield from OPERATIONS[node.op].problems(node)
    else:
        yield f"unknown operation {node.op!r}, expected one of {', '.join(OPERATIONS)}"


def infer_shape(node: Node, shapes: Sequence[Shape]) -> Shape:
    """Shape of the node's output for the shapes of its inputs. Raises `ShapeError`."""
    return OPERATIONS[node.op].infer_shape(node, shapes)
