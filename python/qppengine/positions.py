# SPDX-License-Identifier: Apache-2.0
"""Chooses the QPP positions: the values whose features predict the bounds of others."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from qppengine.errors import CalibrationError, ShapeError, expect_list
from qppengine.quantization import DEFAULT_FEATURES, Feature, Position

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qppengine.graph import Graph


def find_positions(
    graph: Graph,
    positions: str | Sequence[str] = "first",
    features: Sequence[Feature] | Mapping[str, Sequence[Feature]] = DEFAULT_FEATURES,
) -> tuple[Position, ...]:
    """The positions of an optimized graph, with the rows that each of them predicts.

    A position predicts its own row and those of the values computed from it, up to the next
    position; where branches join, the last one decides. Positions without rows are left out.
    `positions` and `features` are as in `calibrate`. Raises `CalibrationError`.
    """
    names = _choose_names(graph, positions)
    given = features if isinstance(features, Mapping) else dict.fromkeys(names, features)
    lists = {
        name: expect_list("features", items, Feature, "a list of Feature objects")
        for name, items in given.items()
    }
    sources = [feature.value for each in lists.values() for feature in each if feature.value]
    if others := [name for name in lists if name not in names]:
        raise CalibrationError(
            f"features: expected some of the positions {list(names)}, got {others}"
        )
    if unknown := [name for name in (*names, *sources) if name not in graph.shapes]:
        raise CalibrationError(
            f"positions and features: the network has no value "
            f"{', '.join(dict.fromkeys(unknown))}; `qppengine inspect` lists its values"
        )
    position_of = _assign_values(graph, names)
    rows: dict[str, list[int]] = {name: [] for name in names}
    for row, value in enumerate(graph.quantized_values):
        if value not in position_of:
            raise CalibrationError(f"positions: none of {list(names)} comes before {value!r}")
        rows[position_of[value]].append(row)
    return tuple(
        Position(name, tuple(assigned), lists.get(name, DEFAULT_FEATURES))
        for name, assigned in rows.items()
        if assigned
    )


def _choose_names(graph: Graph, positions: str | Sequence[str]) -> tuple[str, ...]:
    if not isinstance(positions, str):
        return expect_list("positions", positions, str, "a list of names of values")
    if positions not in ("first", "auto"):
        raise CalibrationError(
            f'positions: expected "first", "auto" or a list of values, got {positions!r}'
        )
    computed: set[str] = set()  # from quantized values
    for node in graph.nodes:
        if any(value in graph.qparams_groups or value in computed for value in node.inputs):
            computed.add(node.output)
    first = tuple(value for value in graph.quantized_values if value not in computed)
    return first if positions == "first" else (*first, *_stage_inputs(graph))


def _stage_inputs(graph: Graph) -> Iterator[str]:
    """The input of the first layer of every lower resolution, except for outputs of one pixel."""
    shapes = _shapes_of_large_image(graph)
    areas = {value: math.prod(shape[2:]) for value, shape in shapes.items()}
    finest = max(areas[value.name] for value in graph.inputs)
    reached = 0
    for node in graph.nodes:
        if node.op in ("conv2d", "max_pool2d", "avg_pool2d") and areas[node.output] > 1:
            halvings = round(math.log2(finest / areas[node.output]) / 2)
            if halvings > reached:
                reached = halvings
                yield node.inputs[0]


def _shapes_of_large_image(graph: Graph) -> dict[str, tuple[int, ...]]:
    for size in (1024, 256, 64):
        with contextlib.suppress(ShapeError):
            return graph.resolve_shapes(size)
    return graph.resolve_shapes(16)


def _assign_values(graph: Graph, names: tuple[str, ...]) -> dict[str, str]:
    """The position of every value: the last one among itself and the values it depends on."""
    position_of: dict[str, str] = {}
    producers = {node.output: node for node in graph.nodes}
    order = {value: index for index, value in enumerate(graph.shapes)}
    for value in graph.shapes:
        sources = producers[value].inputs if value in producers else ()
        upstream = [position_of[source] for source in sources if source in position_of]
        if value in names:
            position_of[value] = value
        elif upstream:
            position_of[value] = max(upstream, key=order.__getitem__)
    return position_of
