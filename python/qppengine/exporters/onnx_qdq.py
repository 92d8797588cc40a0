# SPDX-License-Identifier: Apache-2.0
"""Writes model files as ONNX models of the form QDQ, which other engines and tools read.

A value that the engine holds in int8 passes ``QuantizeLinear`` and ``DequantizeLinear`` with its
static bounds before the nodes that read it in int8. Their weights are int8 with one scale per
output channel, their biases int32. Everything else is float32.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from qppengine.errors import UnsupportedError
from qppengine.model_file import unpack, unpack_static_bounds
from qppengine.operations import OPERATIONS
from qppengine.operations.onnx_context import OnnxContext, OnnxParts
from qppengine.qparams import QParams
from qppengine.session import read_model

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    import onnx

    from qppengine.graph import Graph
    from qppengine.ir import Node, Shape

_OPSET = 22  # the first whose pools have the sizes of ours
_IR_VERSION = 10


def to_onnx(
    model: str | os.PathLike[str] | bytes, static_bounds: str | None = None
) -> onnx.ModelProto:
    """A calibrated model file as an ONNX model that computes the outputs of scheme "static".

    Activations have 8 bits; other widths and dense + sparse values have no form in ONNX.
    ``static_bounds`` is "mean", "range" or "fitted" as in `Session`. Of a file without calibration
    the model is float32. Raises `ModelError`, `FileError`, and `UnsupportedError` for operations
    without an equivalent in ONNX.
    """
    contents = read_model(model)
    graph, bounds = unpack(*contents), unpack_static_bounds(*contents, static_bounds)
    groups = graph.qparams_groups if bounds else {}
    qparams = {
        value: QParams.from_bounds(float(bounds[owner][0]), float(bounds[owner][1]), 8)
        for value, owner in groups.items()
    }
    return _Writer(graph, qparams).write()


class _Writer:
    """Writes the nodes of a graph one by one. A value has the same name in the ONNX model.

    A value read in int8 is there a second time, dequantized.
    """

    def __init__(self, graph: Graph, qparams: Mapping[str, QParams]) -> None:
        self._graph = graph
        self._qparams = qparams
        self._parts = OnnxParts()
        self._dequantized: dict[str, str] = {}

    def write(self) -> onnx.ModelProto:
        from onnx import helper, numpy_helper

        for value in self._graph.inputs:
            self._quantize(value.name, value.name)
        for node in self._graph.nodes:
            self._write(node)
        graph = helper.make_graph(
            self._parts.nodes,
            self._graph.name,
            [_info(value.name, value.shape) for value in self._graph.inputs],
            [_info(name, self._graph.shapes[name]) for name in self._graph.outputs],
            [numpy_helper.from_array(array, name) for name, array in self._parts.constants.items()],
        )
        return helper.make_model(
            graph,
            producer_name="qppengine",
            opset_imports=[helper.make_opsetid("", _OPSET)],
            ir_version=_IR_VERSION,
        )

    def _write(self, node: Node) -> None:
        operation = OPERATIONS[node.op]
        if operation.export is None:
            raise UnsupportedError(
                f"{node.name}: {node.op} has no form in ONNX here",
                closest="the graph that `qppengine.passes.optimize` returns",
            )
        in_int8 = bool(self._qparams) and self._graph.reads_int8(node)
        inputs = [
            self._dequantized[name] if in_int8 and self._graph.reads_int8(node, index) else name
            for index, name in enumerate(node.inputs)
        ]
        operation.write_onnx(
            OnnxContext(
                node=node,
                inputs=inputs,
                input_shape=self._graph.shapes[node.inputs[0]],
                input_scale=self._qparams[node.inputs[0]].scale if in_int8 else None,
                parts=self._parts,
            )
        )
        # What shares the qparams of its input is quantized for all nodes that read it.
        shared = in_int8 and self._graph.shares_qparams(node)
        result = f"{node.output}/unrounded" if shared else node.output
        self._parts.nodes[-1].output[0] = result
        self._quantize(node.output, result)
        if shared:
            self._parts.nodes[-1].output[0] = self._dequantized[node.output] = node.output

    def _quantize(self, value: str, tensor: str) -> None:
        if value not in self._qparams:
            return
        qparams, parts = self._qparams[value], self._parts
        scale = parts.constant(value, "scale", qparams.scale)
        zero_point = parts.constant(value, "zero_point", np.int8(qparams.zero_point))
        integers = parts.add(value, "QuantizeLinear", tensor, scale, zero_point, key="int8")
        self._dequantized[value] = parts.add(
            value, "DequantizeLinear", integers, scale, zero_point, key="dequantized"
        )


def _info(name: str, shape: Shape) -> onnx.ValueInfoProto:
    """An input or output; unknown sizes have the names of their axes."""
    from onnx import TensorProto, helper

    axes = zip(shape, "NCHW", strict=True)
    sizes = [f"{name} {axis}" if size is None else size for size, axis in axes]
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, sizes)
