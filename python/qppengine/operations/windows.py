# SPDX-License-Identifier: Apache-2.0
"""Shapes of the outputs of convolutions and pools."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qppengine.errors import ShapeError
from qppengine.ir import sides

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from qppengine.ir import Node, Shape


def effective_kernel(node: Node, kernel: Sequence[int]) -> list[int]:
    """Height and width of a kernel with the gaps that its dilation makes."""
    dilation = node.attributes.get("dilation", (1, 1))
    return [step * (taps - 1) + 1 for step, taps in zip(dilation, kernel, strict=True)]


def infer_windows(
    node: Node, size: Sequence[int | None], kernel: Sequence[int]
) -> Iterator[int | None]:
    """Rows and columns of windows on an image of a size, for an effective kernel."""
    padding = sides(node.attributes["padding"])
    for axis, (n, window, stride) in enumerate(
        zip(size, kernel, node.attributes["stride"], strict=True)
    ):
        if n is None:
            yield None
            continue
        # In ceil mode the last window, even the only one, may exceed the padded image by less than
        # a stride, but has to begin before its right padding.
        ceil_mode = node.attributes.get("ceil_mode", False)
        room = n + padding[axis] + padding[axis + 2] - window + (stride - 1 if ceil_mode else 0)
        if room < 0:
            raise ShapeError(
                f"{node.name}: {node.inputs[0]!r} of size {n}, padded by {padding[axis]} and "
                f"{padding[axis + 2]}, is smaller than the window of {window}"
            )
        count = room // stride + 1
        yield count - 1 if ceil_mode and (count - 1) * stride >= n + padding[axis] else count


def shapes_match(one: Shape, other: Shape) -> bool:
    """Whether two shapes may be the same; an unknown size matches any."""
    return all(a is None or b is None or a == b for a, b in zip(one, other, strict=True))


def merge_shapes(one: Shape, other: Shape) -> Shape:
    """One of two matching shapes, with the sizes that the other one knows."""
    return tuple(b if a is None else a for a, b in zip(one, other, strict=True))
