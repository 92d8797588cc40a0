# SPDX-License-Identifier: Apache-2.0
"""Importers of PyTorch's ATen operators. Signatures are those of native_functions.yaml."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from qppengine.errors import UnsupportedError
from qppengine.importers.program import Ref
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
        groups=operation.get("groups", 1),
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


@importer(
    "aten.sigmoid.default",
    "aten.sigmoid_.default",
    "aten.silu.default",
    "aten.silu_.default",
    "aten.hardsigmoid.default",
    "aten.hardsigmoid_.default",
    "aten.hardswish.default",
    "aten.hardswish_.default",
)
def function(operation: Operation, graph: GraphBuilder) -> str:
    """The functions that bear the operator's name."""
    name = operation.call.target.split(".")[1].rstrip("_")
    return graph.function(operation.value("self"), name, name=operation.name)


@importer("aten.leaky_relu.default", "aten.leaky_relu_.default")
def leaky_relu(operation: Operation, graph: GraphBuilder) -> str:
    """A parametric ReLU with one constant slope."""
    slope = operation.get("negative_slope", 0.01)
    return graph.prelu(operation.value("self"), [slope], name=operation.name)


@importer("aten.prelu.default")
def prelu(operation: Operation, graph: GraphBuilder) -> str:
    """A parametric ReLU with one slope, or one for every channel."""
    weight = operation.tensor("weight")
    if weight is None or weight.ndim != 1:
        raise UnsupportedError("weight must have 1 dimension")
    return graph.prelu(operation.value("self"), weight, name=operation.name)


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


@importer("aten.add.Tensor", "aten.add_.Tensor")
def add(operation: Operation, graph: GraphBuilder) -> str:
    """A sum of two tensors."""
    _expect(operation, "alpha", 1)
    x, y = _two_tensors(operation, graph, commutes=True)
    return graph.add(x, y, name=operation.name)


@importer("aten.sub.Tensor", "aten.sub_.Tensor")
def sub(operation: Operation, graph: GraphBuilder) -> str:
    """A difference of two tensors."""
    _expect(operation, "alpha", 1)
    x, y = _two_tensors(operation, graph, commutes=False)
    return graph.sub(x, y, name=operation.name)


@importer("aten.mul.Tensor", "aten.mul_.Tensor")
def mul(operation: Operation, graph: GraphBuilder) -> str:
    """A product of two tensors."""
    x, y = _two_tensors(operation, graph, commutes=True)
    return graph.mul(x, y, name=operation.name)


@importer("aten.max_pool2d.default")
def max_pool2d(operation: Operation, graph: GraphBuilder) -> str:
    """Maxima of windows."""
    if any(step != 1 for step in _pair(operation, "dilation", 1)):
        raise UnsupportedError("dilation; nearest is dilation=1")
    return graph.max_pool2d(
        operation.value("self"),
        _pair(operation, "kernel_size", 1),
        stride=_pair(operation, "stride", 1) if operation.get("stride") else None,
        padding=_pair(operation, "padding", 0),
        ceil_mode=operation.get("ceil_mode", False),
        name=operation.name,
    )


@importer("aten.avg_pool2d.default")
def avg_pool2d(operation: Operation, graph: GraphBuilder) -> str:
    """Means of windows."""
    if operation.get("divisor_override") is not None:
        raise UnsupportedError("divisor_override; nearest is none")
    return graph.avg_pool2d(
        operation.value("self"),
        _pair(operation, "kernel_size", 1),
        stride=_pair(operation, "stride", 1) if operation.get("stride") else None,
        padding=_pair(operation, "padding", 0),
        ceil_mode=operation.get("ceil_mode", False),
        count_include_pad=operation.get("count_include_pad", True),
        name=operation.name,
    )


@importer("aten.adaptive_avg_pool2d.default")
def adaptive_avg_pool2d(operation: Operation, graph: GraphBuilder) -> str:
    """Means of equal windows: of the image, or where its size is known and divides evenly."""
    value = operation.value("self")
    target = _pair(operation, "output_size", 1)
    if list(target) == [1, 1]:
        return graph.global_avg_pool(value, name=operation.name)
    size = [n for n in operation.shape("self", graph)[2:] if n is not None]
    if len(size) != 2 or any(n % m for n, m in zip(size, target, strict=True)):
        raise UnsupportedError(
            f"output_size={list(target)} of an image of {size or 'any size'}; "
            "nearest is output_size=1"
        )
    kernel = [n // m for n, m in zip(size, target, strict=True)]
    return graph.avg_pool2d(value, kernel, name=operation.name)


@importer("aten.mean.dim")
def mean(operation: Operation, graph: GraphBuilder) -> str:
    """The mean over height and width."""
    axes = operation.get("dim")
    if not isinstance(axes, list) or sorted(axis % 4 for axis in axes) != [2, 3]:
        raise UnsupportedError(f"dim={axes}; nearest is dim=[2, 3]")
    return graph.global_avg_pool(operation.value("self"), name=operation.name)


@importer("aten.cat.default")
def cat(operation: Operation, graph: GraphBuilder) -> str:
    """Channels of several tensors."""
    if operation.get("dim", 0) not in (1, -3):
        raise UnsupportedError(f"dim={operation.get('dim', 0)}; nearest is dim=1")
    return graph.concat(*operation.value_list("tensors"), name=operation.name)


@importer(
    "aten.upsample_nearest2d.vec",
    "aten.upsample_nearest2d.default",
    "aten.upsample_bilinear2d.vec",
    "aten.upsample_bilinear2d.default",
)
def upsample(operation: Operation, graph: GraphBuilder) -> str:
    """Resizing to a size, or by scale factors."""
    scales = operation.get("scale_factors")
    size = operation.get("output_size")
    if size is not None and not (
        isinstance(size, list) and all(isinstance(item, int) for item in size)
    ):
        raise UnsupportedError("a size known at run time only; nearest is scale_factor")
    if size is None and not isinstance(scales, list):
        raise UnsupportedError("neither size nor scale_factor")
    bilinear = "bilinear" in operation.call.target
    return graph.resize(
        operation.value("input" if "input" in operation.call.arguments else "self"),
        size=size,
        scale=None if size is not None else scales,
        mode="bilinear" if bilinear else "nearest",
        align_corners=bilinear and operation.get("align_corners", False),
        name=operation.name,
    )


@importer("aten.flatten.using_ints")
def flatten(operation: Operation, graph: GraphBuilder) -> str:
    """All but the batch in one dimension."""
    if operation.get("start_dim", 0) != 1 or operation.get("end_dim", -1) not in (-1, 3):
        raise UnsupportedError("flattening of other than all of an image; nearest is start_dim=1")
    return graph.flatten(operation.value("self"), name=operation.name)


@importer("aten.view.default", "aten.reshape.default")
def view(operation: Operation, graph: GraphBuilder) -> str:
    """The same, written as a change of shape."""
    sizes = operation.get("size", operation.get("shape"))
    batch, *size = operation.shape("self", graph)
    flat = math.prod(n or 0 for n in size)
    if not isinstance(sizes, list) or len(sizes) != 2 or sizes[0] != batch:
        raise UnsupportedError(f"sizes {sizes}; nearest is flatten(1)")
    if sizes[1] not in (-1, flat):
        raise UnsupportedError(f"sizes {sizes}; nearest is flatten(1)")
    return graph.flatten(operation.value("self"), name=operation.name)


@importer("aten.linear.default")
def linear(operation: Operation, graph: GraphBuilder) -> str:
    """A matrix product over the channels of single pixels, which is a 1x1 convolution."""
    weight = operation.tensor("weight")
    value = operation.value("input")
    if weight is None or weight.ndim != 2:
        raise UnsupportedError("weight must have 2 dimensions")
    if operation.shape("input", graph)[2:] != (1, 1):
        raise UnsupportedError("an input that is no vector; nearest is linear behind flatten")
    bias = operation.tensor("bias")
    return graph.conv2d(value, weight[:, :, None, None], bias, name=operation.name)


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


def _two_tensors(operation: Operation, graph: GraphBuilder, *, commutes: bool) -> tuple[str, str]:
    """Both operands; one per channel comes second."""
    if not isinstance(operation.get("other"), Ref):
        raise UnsupportedError("a number as operand; nearest is an operation on two tensors")
    x, y = operation.value("self"), operation.value("other")
    sizes = [operation.shape(argument, graph)[2:] for argument in ("self", "other")]
    if commutes and sizes[0] == (1, 1) != sizes[1]:
        return y, x
    return x, y


def _expect(operation: Operation, argument: str, value: float) -> None:
    if (got := operation.get(argument, value)) != value:
        raise UnsupportedError(f"{argument}={got}; nearest is {argument}={value}")


def _pair(operation: Operation, argument: str, default: int) -> Sequence[int]:
    """A list of two integers; operators let one stand for both."""
    value = operation.get(argument, default)
    items = value if isinstance(value, list) else [value]
    if len(items) not in (1, 2) or not all(isinstance(item, int) for item in items):
        raise UnsupportedError(f"{argument} must be two constant integers, got {value!r}")
    return items * 2 if len(items) == 1 else items
