# SPDX-License-Identifier: Apache-2.0
"""Importers of PyTorch's ATen operators. Signatures are those of native_functions.yaml."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from qppengine.errors import UnsupportedError
from qppengine.importers.registry import Operation, importer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qppengine.graph import GraphBuilder

_FLOAT32_MAX = float(np.finfo(np.float32).max)


@importer("aten.conv2d.default", "aten.conv2d.padding")
def conv2d(operation: Operation, graph: GraphBuilder) -> str:
    """A convolution; padding is a number, a pair, "same" or "valid"."""
    weight = operation.tensor("weight")
    if weight is None or weight.ndim != 4:
        raise UnsupportedError("weight must have 4 dimensions")
    if (groups := operation.get("groups", 1)) != 1:
        raise UnsupportedError(f"groups={groups}; nearest is groups=1")
    dilation = _pair(operation, "dilation", 1)
    padding = operation.get("padding", 0)
    if padding == "same":
        spans = [step * (size - 1) for step, size in zip(dilation, weight.shape[2:], strict=True)]
        if any(span % 2 for span in spans):
            raise UnsupportedError("padding='same' of an even kernel; nearest is an odd kernel")
        pads: Sequence[int] = [span // 2 for span in spans]
    elif padding == "valid":
        pads = [0, 0]
    else:
        pads = _pair(operation, "padding", 0)
    return graph.conv2d(
        operation.value("input"),
        weight,
        operation.tensor("bias"),
        stride=_pair(operation, "stride", 1),
        padding=pads,
        dilation=dilation,
        name=operation.name,
    )


@importer("aten.batch_norm.default")
def batch_norm(operation: Operation, graph: GraphBuilder) -> str:
    """Normalization by running statistics; weight and bias may be None."""
    mean, var = operation.tensor("running_mean"), operation.tensor("running_var")
    if operation.get("training") or mean is None or var is None:
        raise UnsupportedError("statistics of the batch; nearest is running statistics, eval()")
    weight, bias = operation.tensor("weight"), operation.tensor("bias")
    return graph.batch_norm(
        operation.value("input"),
        np.ones_like(mean) if weight is None else weight,
        np.zeros_like(mean) if bias is None else bias,
        mean,
        var,
        eps=operation.get("eps"),
        name=operation.name,
    )


@importer("aten.relu.default", "aten.relu_.default")
def relu(operation: Operation, graph: GraphBuilder) -> str:
    """``max(self, 0)``."""
    return graph.relu(operation.value("self"), name=operation.name)


@importer("aten.relu6.default", "aten.relu6_.default")
def relu6(operation: Operation, graph: GraphBuilder) -> str:
    """``min(max(self, 0), 6)``."""
    return graph.clamp(operation.value("self"), 0, 6, name=operation.name)


@importer("aten.tanh.default", "aten.tanh_.default")
def tanh(operation: Operation, graph: GraphBuilder) -> str:
    """The hyperbolic tangent."""
    return graph.tanh(operation.value("self"), name=operation.name)


@importer("aten.hardtanh.default", "aten.hardtanh_.default")
def hardtanh(operation: Operation, graph: GraphBuilder) -> str:
    """A clamp to [min_val, max_val]; of ReLU6 too."""
    return _clamp(operation, graph, operation.get("min_val", -1), operation.get("max_val", 1))


@importer("aten.clamp.default", "aten.clamp_.default")
def clamp(operation: Operation, graph: GraphBuilder) -> str:
    """A clamp to [min, max], either of which may be None."""
    return _clamp(operation, graph, operation.get("min"), operation.get("max"))


@importer("aten.clamp_min.default", "aten.clamp_min_.default")
def clamp_min(operation: Operation, graph: GraphBuilder) -> str:
    """A clamp from below."""
    return _clamp(operation, graph, operation.get("min"), None)


@importer("aten.clamp_max.default", "aten.clamp_max_.default")
def clamp_max(operation: Operation, graph: GraphBuilder) -> str:
    """A clamp from above."""
    return _clamp(operation, graph, None, operation.get("max"))


@importer("aten.pixel_shuffle.default")
def pixel_shuffle(operation: Operation, graph: GraphBuilder) -> str:
    """Channels to space."""
    factor = operation.get("upscale_factor")
    return graph.pixel_shuffle(operation.value("self"), factor, name=operation.name)


@importer("aten.dropout.default", "aten.dropout_.default", "aten.feature_dropout.default")
def dropout(operation: Operation, graph: GraphBuilder) -> str:
    """The input itself, as long as it does not train."""
    if operation.get("train"):
        raise UnsupportedError("dropout that trains; nearest is eval()")
    return operation.value("input")


@importer("aten.alias.default", "aten.contiguous.default", "aten.detach.default")
def identity(operation: Operation, graph: GraphBuilder) -> str:
    """Operators that return the tensor they are given."""
    return operation.value("self")


@importer("aten.clone.default")
def clone(operation: Operation, graph: GraphBuilder) -> str:
    """A value of its own: in-place operators may change it and leave its source alone."""
    return graph.activation(operation.value("self"), "none", name=operation.name)


def _clamp(operation: Operation, graph: GraphBuilder, lo: float | None, hi: float | None) -> str:
    """A clamp whose missing bounds are the largest finite numbers; relu where it is one."""
    if not all(bound is None or isinstance(bound, (int, float)) for bound in (lo, hi)):
        raise UnsupportedError(f"bounds must be numbers, got {lo!r} and {hi!r}")
    low = -math.inf if lo is None else lo
    high = math.inf if hi is None else hi
    if low == 0 and high == math.inf:
        return graph.relu(operation.value("self"), name=operation.name)
    return graph.clamp(
        operation.value("self"),
        max(low, -_FLOAT32_MAX),
        min(high, _FLOAT32_MAX),
        name=operation.name,
    )


def _pair(operation: Operation, argument: str, default: int) -> Sequence[int]:
    """A list of two integers; operators let one stand for both."""
    value = operation.get(argument, default)
    items = value if isinstance(value, list) else [value]
    if len(items) not in (1, 2) or not all(isinstance(item, int) for item in items):
        raise UnsupportedError(f"{argument} must be two constant integers, got {value!r}")
    return items * 2 if len(items) == 1 else items
