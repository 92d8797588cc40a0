# SPDX-License-Identifier: Apache-2.0
"""Resizing of images to a size or by scales.

``mode`` is "nearest", "nearest-exact" or "bilinear". With ``snap_scale``, an axis whose size does
not change is copied whatever its scale, and "nearest" repeats each pixel of an axis that becomes
twice as long: PyTorch does both.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from qppengine.errors import ShapeError, UnsupportedError
from qppengine.operations.attributes import FLAG, Attribute, choice, is_list, is_number, pair
from qppengine.operations.schema import OpSchema

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from qppengine.ir import Array, Node, Shape
    from qppengine.operations.onnx_context import OnnxContext

RESIZE_MODES = ("nearest", "nearest-exact", "bilinear")

_SCALES = Attribute(
    "two numbers from 1/256 to 256",
    lambda value: is_list(value, (2,), lambda n: is_number(n) and 1 / 256 <= n <= 256),
)


def _check(node: Node) -> Iterator[str]:
    if ("size" in node.attributes) == ("scale" in node.attributes):
        yield "expected either attribute 'size' or attribute 'scale'"
    if "snap_scale" in node.attributes and "scale" not in node.attributes:
        yield "attribute 'snap_scale' belongs to attribute 'scale'"
    if node.attributes["mode"] != "bilinear" and node.attributes["align_corners"]:
        yield "attribute 'align_corners' belongs to mode 'bilinear'"


def _infer_shape(node: Node, shapes: Sequence[Shape]) -> Shape:
    size = shapes[0][2:]
    if "size" in node.attributes:
        return (*shapes[0][:2], *node.attributes["size"])
    sizes = tuple(
        None if n is None else math.floor(n * scale)
        for n, scale in zip(size, node.attributes["scale"], strict=True)
    )
    if 0 in sizes:
        raise ShapeError(
            f"{node.name}: the output would be empty: {node.inputs[0]!r} has size {list(size)}"
        )
    return (*shapes[0][:2], *sizes)


def _compute(node: Node, x: Array) -> Array:
    """Rows first, then columns, each a mean of its two nearest sources."""
    bilinear = node.attributes["mode"] == "bilinear"
    for axis in (2, 3):
        size = x.shape[axis]
        place = _source_places(node, axis - 2, size)
        first = np.minimum(place.astype(np.int64), size - 1)
        if not bilinear:
            x = np.take(x, first, axis)
            continue
        second = np.minimum(first + 1, size - 1)
        weight = (place - first).astype(np.float32).reshape(-1, *[1] * (3 - axis))
        near, far = np.take(x, first, axis), np.take(x, second, axis)
        x = np.asarray(near * (1 - weight) + far * weight, np.float32)
    return np.ascontiguousarray(x)


def _source_places(node: Node, axis: int, size: int) -> Array:
    """Where on the image the rows or columns of the result are, in pixels."""
    mode, align_corners = node.attributes["mode"], node.attributes["align_corners"]
    scale = node.attributes["scale"][axis] if "scale" in node.attributes else 0
    target = int(np.floor(size * scale)) if scale else node.attributes["size"][axis]
    index, half = np.arange(target, dtype=np.float32), np.float32(0.5)
    keeps = mode != "nearest-exact" and target == size
    doubles = mode == "nearest" and target == 2 * size
    snaps = node.attributes.get("snap_scale", False) and (keeps or doubles)
    by_sizes = np.float32(size) / np.float32(target)
    step = np.float32(1 / scale) if scale and not snaps else by_sizes
    if align_corners:
        step = np.float32(size - 1) / np.float32(max(target - 1, 1))
    if mode == "nearest-exact":
        place = step * (index + half)
    elif mode == "bilinear" and not align_corners:
        place = np.maximum(step * (index + half) - half, np.float32(0))
    else:
        place = step * index
    return np.asarray(place, np.float32)


def _export(context: OnnxContext) -> None:
    attributes = context.node.attributes
    # All four dimensions: with `axes`, ONNX Runtime moves channels and ignores `axes`.
    if "size" in attributes:
        unchanged = context.add("Shape", *context.inputs, start=0, end=2, key="unchanged")
        known = context.integers("size", attributes["size"])
        target = ["", context.add("Concat", unchanged, known, axis=0, key="sizes")]
    else:
        if attributes.get("snap_scale"):
            raise UnsupportedError(
                f"{context.node.name}: ONNX has no resize by scales with snap_scale",
                closest="a network of fixed sizes",
            )
        scales = np.array([1, 1, *attributes["scale"]], np.float32)
        target = [context.constant("scales", scales)]
    bilinear, exact = (attributes["mode"] == mode for mode in ("bilinear", "nearest-exact"))
    coordinates = "half_pixel" if bilinear or exact else "asymmetric"
    if attributes["align_corners"]:
        coordinates = "align_corners"
    context.add(
        "Resize",
        *context.inputs,
        "",
        *target,
        mode="linear" if bilinear else "nearest",
        coordinate_transformation_mode=coordinates,
        nearest_mode="round_prefer_ceil" if exact else "floor",
    )


OPERATIONS = (
    OpSchema(
        name="resize",
        compute=_compute,
        export=_export,
        attributes={
            "mode": choice(*RESIZE_MODES),
            "align_corners": FLAG,
            "size": pair(1),
            "scale": _SCALES,
            "snap_scale": FLAG,
        },
        optional=frozenset({"size", "scale", "snap_scale"}),
        check=_check,
        infer_shape=_infer_shape,
    ),
)
