# SPDX-License-Identifier: Apache-2.0
"""The parts of an ONNX model under construction, as operations see them when they are exported."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx

    from qppengine.ir import Node, Shape


class OnnxParts:
    """Collects the nodes and constants of an ONNX model."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, npt.NDArray[Any]] = {}

    def add(self, prefix: str, op: str, *inputs: str, key: str = "", **attributes: Any) -> str:
        """Adds a node and returns the name of its output: the prefix, and `key` or the operator."""
        from onnx import helper

        name = f"{prefix}/{key or op}"
        self.nodes.append(helper.make_node(op, inputs, [name], name, **attributes))
        return name

    def constant(self, prefix: str, key: str, array: npt.ArrayLike) -> str:
        """Adds a constant and returns its name."""
        name = f"{prefix}/{key}"
        self.constants[name] = np.asarray(array)
        return name


@dataclass
class OnnxContext:
    """A node to export.

    Attributes:
        node: The node of the graph.
        inputs: Names of the ONNX tensors to read.
        input_shape: Shape of the first of them.
        input_scale: Step of the first input if that is int8.
        parts: Where the nodes and constants are added. Their names begin with the node's.
    """

    node: Node
    inputs: Sequence[str]
    input_shape: Shape
    input_scale: np.float32 | None
    parts: OnnxParts

    def add(self, op: str, *inputs: str, key: str = "", **attributes: Any) -> str:
        """Adds an ONNX node and returns the name of its output."""
        return self.parts.add(self.node.name, op, *inputs, key=key, **attributes)

    def constant(self, key: str, array: npt.ArrayLike) -> str:
        """Adds a constant and returns its name."""
        return self.parts.constant(self.node.name, key, array)

    def integers(self, key: str, numbers: Sequence[int]) -> str:
        """Adds a constant vector of int64 and returns its name."""
        return self.constant(key, np.array(numbers, np.int64))
