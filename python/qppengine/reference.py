# SPDX-License-Identifier: Apache-2.0
"""Readable NumPy execution of a graph: the reference of tests, and FP32 without torch.

`run` computes in float32. `run_quantized` emulates a quantized engine, with given bounds for every
quantized value: integers between the layers, exact integer sums, float32 epilogues.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from qppengine.errors import CalibrationError, DTypeError, ShapeError, expect_type
from qppengine.operations import OPERATIONS
from qppengine.qparams import QParams

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from qppengine.graph import Graph
    from qppengine.ir import Array


def run(graph: Graph, *inputs: Array) -> list[Array]:
    """Outputs of the network, in the order of ``graph.outputs``; arrays are ``[N, C, H, W]``."""
    values = run_all(graph, *inputs)
    return [values[name] for name in graph.outputs]


def run_all(graph: Graph, *inputs: Array) -> dict[str, Array]:
    """Every value of the network by name."""
    values = _bind(graph, inputs)
    for node in graph.nodes:
        inputs = tuple(values[name] for name in node.inputs)
        values[node.output] = OPERATIONS[node.op].compute(node, *inputs)
    return values


def run_quantized(
    graph: Graph,
    bounds: Mapping[str, tuple[float, float]],
    *inputs: Array,
    activation_bits: int = 8,
    through_fp16: bool = False,
) -> dict[str, Array]:
    """Every value of the network in a quantized run, in which `Graph.int8_nodes` read integers.

    ``bounds`` gives lo, hi of each of ``graph.quantized_values``. Quantized values are returned
    dequantized. With ``through_fp16`` every value is rounded to fp16 first, as where the engine
    stores it in order to measure it.
    """
    expect_type("bounds", bounds, Mapping, "a mapping of values to lo, hi")
    if missing := [value for value in graph.quantized_values if value not in bounds]:
        raise CalibrationError(f"bounds: expected those of every quantized value, got no {missing}")
    qparams = {
        value: QParams.from_bounds(*bounds[owner], activation_bits)
        for value, owner in graph.qparams_groups.items()
    }
    values = _bind(graph, inputs)
    int8 = {name: _fake_quantize(x, qparams.get(name)) for name, x in values.items()}
    for node in graph.nodes:
        operation = OPERATIONS[node.op]
        in_int8 = node.name in graph.int8_nodes
        read = [
            (int8 if graph.reads_int8(node, index) else values)[name]
            for index, name in enumerate(node.inputs)
        ]
        if in_int8 and operation.compute_int8 is not None:
            y = operation.compute_int8(node, qparams[node.inputs[0]], *read)
        else:
            y = operation.compute(node, *read)
        if through_fp16:
            y = y.astype(np.float16).astype(np.float32)
        int8[node.output] = _fake_quantize(y, qparams.get(node.output))
        values[node.output] = int8[node.output] if graph.shares_qparams(node) else y
    return int8


def _bind(graph: Graph, inputs: Sequence[Array]) -> dict[str, Array]:
    """The inputs by name. Raises `ShapeError` when they do not fit the network."""
    if len(inputs) != len(graph.inputs):
        raise ShapeError(f"expected {len(graph.inputs)} inputs, got {len(inputs)}")
    values = {
        value.name: _as_image(value.name, array)
        for value, array in zip(graph.inputs, inputs, strict=True)
    }
    graph.infer_shapes({name: array.shape for name, array in values.items()})
    return values


def _as_image(name: str, x: npt.ArrayLike) -> Array:
    try:
        image = np.asarray(x, np.float32)
    except (TypeError, ValueError) as error:
        raise DTypeError(f"input {name!r}: expected an array of numbers: {error}") from error
    if image.ndim != 4:
        raise ShapeError(f"input {name!r}: expected [N, C, H, W], got {list(image.shape)}")
    return image


def _fake_quantize(x: Array, params: QParams | None) -> Array:
    """The values that remain of `x` in int8; `x` itself where it is not quantized."""
    return x if params is None else params.dequantize(params.quantize(x))
