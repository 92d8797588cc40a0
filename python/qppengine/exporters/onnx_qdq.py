# SPDX-License-Identifier: Apache-2.0
"""Writes model files as ONNX models of the form QDQ, which other engines and tools read.

A value that the engine holds in int8 passes ``QuantizeLinear`` and ``DequantizeLinear`` with its
static bounds before the nodes that read it in int8. Their weights are int8 with one scale per
output channel, their biases int32. Everything else is float32.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from qppengine.errors import UnsupportedError
from qppengine.graph import KEEPS_LEVELS
from qppengine.model_file import load_graph
from qppengine.operations import sides
from qppengine.reference import QParams, quantize_weight
from qppengine.session import read_model

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    import numpy.typing as npt
    import onnx

    from qppengine.graph import Graph, Node
    from qppengine.operations import Shape

_OPSET = 22  # the first whose pools have the sizes of ours
_IR_VERSION = 10

_INT32_MAX = 2**31 - 1
_MAX_PRODUCT = 255  # of an activation less its zero point


def to_onnx(
    model: str | os.PathLike[str] | bytes, static_bounds: str | None = None
) -> onnx.ModelProto:
    """A calibrated model file as an ONNX model that computes what scheme "static" does.

    Activations have 8 bits; other widths and dense + sparse values have no form in ONNX.
    ``static_bounds`` is "mean" or "range" as in `Session`. Of a file without calibration the model
    is float32. Raises `ModelError`, `FileError`, and `UnsupportedError` for what ONNX lacks.
    """
    graph = load_graph(model)
    text, tensors = read_model(model)
    quantization = json.loads(text).get("quantization")
    qparams: dict[str, QParams] = {}
    if quantization is not None and quantization.get("static"):
        rule = static_bounds or quantization["default_static"]
        if rule not in quantization["static"]:
            raise UnsupportedError(f'static_bounds: expected "mean" or "range", got {rule!r}')
        values = quantization["values"]
        rows = tensors[quantization["static"][rule]][: len(values)]  # those of densities follow
        bounds = dict(zip(values, rows, strict=True))
        qparams = {
            value: QParams.from_bounds(float(bounds[owner][0]), float(bounds[owner][1]), 8)
            for value, owner in graph.row_owners.items()
        }
    return _Writer(graph, qparams).write()


class _Writer:
    """Collects the nodes and constants of the model. A value bears its name in the graph.

    A value read in int8 is there a second time, dequantized.
    """

    def __init__(self, graph: Graph, qparams: Mapping[str, QParams]) -> None:
        self._graph = graph
        self._qparams = qparams
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, npt.NDArray[Any]] = {}
        self._dequantized: dict[str, str] = {}
        self._prefix = ""  # of the names of what is added: a node's or value's

    def write(self) -> onnx.ModelProto:
        from onnx import helper, numpy_helper

        for value in self._graph.inputs:
            self._quantize(value.name, value.name)
        for node in self._graph.nodes:
            self._write(node)
        graph = helper.make_graph(
            self._nodes,
            self._graph.name,
            [_info(value.name, value.shape) for value in self._graph.inputs],
            [_info(name, self._graph.shapes[name]) for name in self._graph.outputs],
            [numpy_helper.from_array(array, name) for name, array in self._constants.items()],
        )
        return helper.make_model(
            graph,
            producer_name="qppengine",
            opset_imports=[helper.make_opsetid("", _OPSET)],
            ir_version=_IR_VERSION,
        )

    def _write(self, node: Node) -> None:
        if node.op not in _EXPORTERS:
            raise UnsupportedError(f"{node.name}: {node.op} has no form in ONNX here")
        in_int8 = self.reads_int8(node)
        inputs = [
            self._dequantized[name] if in_int8 and self._graph.reads_int8(node, index) else name
            for index, name in enumerate(node.inputs)
        ]
        self._prefix = node.name
        _EXPORTERS[node.op](self, node, inputs)
        # What keeps the levels of its input is rounded to them, for all that read it.
        kept = in_int8 and node.op in KEEPS_LEVELS
        result = f"{node.output}/unrounded" if kept else node.output
        self._nodes[-1].output[0] = result
        self._quantize(node.output, result)
        if kept:
            self._nodes[-1].output[0] = self._dequantized[node.output] = node.output

    def _quantize(self, value: str, tensor: str) -> None:
        if value not in self._qparams:
            return
        self._prefix = value
        qparams = self._qparams[value]
        scale = self.constant("scale", qparams.scale)
        zero_point = self.constant("zero_point", np.int8(qparams.zero_point))
        integers = self.add("QuantizeLinear", tensor, scale, zero_point, key="int8")
        self._dequantized[value] = self.add(
            "DequantizeLinear", integers, scale, zero_point, key="dequantized"
        )

    def reads_int8(self, node: Node) -> bool:
        return bool(self._qparams) and node.name in self._graph.int8_nodes

    def scale(self, value: str) -> np.float32:
        return self._qparams[value].scale

    def shape(self, value: str) -> Shape:
        return self._graph.shapes[value]

    def add(self, op: str, *inputs: str, key: str = "", **attributes: Any) -> str:
        """Adds a node and returns the name of its output: `key`, or the operator's."""
        from onnx import helper

        name = f"{self._prefix}/{key or op}"
        self._nodes.append(helper.make_node(op, inputs, [name], name, **attributes))
        return name

    def constant(self, key: str, array: npt.ArrayLike) -> str:
        """Adds a constant and returns its name."""
        name = f"{self._prefix}/{key}"
        self._constants[name] = np.asarray(array)
        return name

    def integers(self, key: str, numbers: Sequence[int]) -> str:
        """Adds a constant vector of int64 and returns its name."""
        return self.constant(key, np.array(numbers, np.int64))


def _info(name: str, shape: Shape) -> onnx.ValueInfoProto:
    """An input or output; sizes that are open bear their axis's name."""
    from onnx import TensorProto, helper

    axes = zip(shape, "NCHW", strict=True)
    sizes = [f"{name} {axis}" if size is None else size for size, axis in axes]
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, sizes)


# An exporter adds the nodes that compute a node's output from the tensors that it reads; the output
# is that of the last.
_Exporter: TypeAlias = Callable[[_Writer, "Node", Sequence[str]], None]

_EXPORTERS: dict[str, _Exporter] = {}


def _exporter(*ops: str) -> Callable[[_Exporter], _Exporter]:
    def register(function: _Exporter) -> _Exporter:
        _EXPORTERS.update(dict.fromkeys(ops, function))
        return function

    return register


@_exporter("conv2d")
def _conv2d(writer: _Writer, node: Node, inputs: Sequence[str]) -> None:
    tensors = (_int8_tensors if writer.reads_int8(node) else _float_tensors)(writer, node)
    result = writer.add(
        "Conv",
        inputs[0],
        *tensors,
        strides=node.attributes["stride"],
        pads=sides(node.attributes["padding"]),
        dilations=node.attributes["dilation"],
        group=node.attributes.get("groups", 1),
    )
    for residual in inputs[1:]:
        result = writer.add("Add", result, residual)
    _activate(writer, node, result)


def _float_tensors(writer: _Writer, node: Node) -> list[str]:
    """The names of the weight and, where there is one, the bias of a convolution."""
    return [
        writer.constant(key, node.tensors[key]) for key in ("weight", "bias") if key in node.tensors
    ]


def _int8_tensors(writer: _Writer, node: Node) -> list[str]:
    """The same, dequantized from integers.

    Integer kernels add the bias as int32 in units of the products. Where it would not fit next to
    small weights, the scale of that channel's weights is raised until it does.
    """
    weight, bias = node.tensors["weight"], node.tensors.get("bias")
    input_scale = np.float64(writer.scale(node.inputs[0]))
    integers, scale = quantize_weight(weight)
    room = _INT32_MAX - _MAX_PRODUCT * np.abs(integers.astype(np.int64)).sum(axis=(1, 2, 3))
    if room.min() < _INT32_MAX // 2:  # the sums leave int32: left to float arithmetic
        rounded = integers * scale[:, None, None, None]
        return _float_tensors(writer, replace(node, tensors={**node.tensors, "weight": rounded}))
    # Integer kernels do not know tanh; others compute with the bias as it is.
    fuses = bias is not None and node.attributes["activation"] != "tanh"
    if bias is not None and fuses:
        # The largest bias leaves the other half of int32 to the sums.
        least = np.abs(bias.astype(np.float64)) / (input_scale * (_INT32_MAX // 2))
        integers, scale = quantize_weight(weight, np.maximum(scale, least).astype(np.float32))
    tensors = [
        writer.add(
            "DequantizeLinear",
            writer.constant("weight", integers),
            writer.constant("weight_scale", scale),
            writer.constant("weight_zero_point", np.zeros_like(scale, np.int8)),
            axis=0,
            key="weight/dequantized",
        )
    ]
    if bias is not None and fuses:
        product = scale * np.float32(input_scale)
        tensors.append(
            writer.add(
                "DequantizeLinear",
                writer.constant("bias", np.rint(bias / product).astype(np.int32)),
                writer.constant("bias_scale", product),
                axis=0,
                key="bias/dequantized",
            )
        )
    elif bias is not None:
        tensors.append(writer.constant("bias", bias))
    return tensors


@_exporter("add", "sub", "mul")
def _binary(writer: _Writer, node: Node, inputs: Sequence[str]) -> None:
    _activate(writer, node, writer.add(node.op.capitalize(), *inputs))


@_exporter("activation")
def _activation(writer: _Writer, node: Node, inputs: Sequence[str]) -> None:
    if node.attributes["activation"] == "none":
        writer.add("Identity", *inputs)
    _activate(writer, node, inputs[0])


def _activate(writer: _Writer, node: Node, tensor: str) -> None:
    """Adds the activation that an operation applies to what it stores."""
    activation = node.attributes["activation"]
    if activation == "clamp":
        bounds = zip(("lo", "hi"), node.attributes["clamp"], strict=True)
        writer.add("Clip", tensor, *(writer.constant(key, np.float32(n)) for key, n in bounds))
    elif activation != "none":
        writer.add(activation.capitalize(), tensor)


@_exporter("sigmoid")
def _sigmoid(writer: _Writer, node: Node, inputs: Sequence[str]) -> None:
    writer.add("Sigmoid", *inputs)


@_exporter("silu")
def _silu(writer: _Writer, node: Node, inputs: Sequence[str]) -> None:
    writer.add("Mul", *inputs, writer.add("Sigmoid", *inputs))


@_exporter("hardsigmoid")
def _hardsigmoid(writer: _Writer, node: Node, inputs: Sequence[str]) -> None:
    writer.add("HardSigmoid", *inputs, alpha=1 / 6, beta=0.5)


@_exporter("hardswish")
def _hardswish(writer: _Writer, node: Node, inputs: Sequence[str]) -> None:
    writer.add("HardSwish", *inputs)


@_exporter("prelu")
def _prelu(writer: _Writer, node: Node, inputs: Sequence[str]) -> None:
    writer.add("PRelu", *inputs, writer.constant("slope", node.tensors["weight"][:, None, None]))


@_exporter("max_pool2d")
def _max_pool2d(writer: _Writer, node: Node, inputs: Sequence[str]) -> None:
    dilation = node.attributes.get("dilation", (1, 1))
    writer.add("MaxPool", *inputs, dilations=dilation, **_window(node))


@_exporter("avg_pool2d")
def _avg_pool2d(writer: _Writer, node: Node, inputs: Sequence[str]) -> None:
    divisor = node.attributes.get("divisor")
    window = _window(node)
    if divisor is not None and node.attributes["ceil_mode"]:
        raise UnsupportedError(f"{node.name}: ONNX has no divisor in ceil_mode")
    includes = divisor is not None or node.attributes["count_include_pad"]
    counts = int(includes and any(window["pads"]))
    gain = 1.0 if divisor is None else math.prod(node.attributes["kernel"]) / divisor
    values = list(inputs)
    if writer.reads_int8(node) and node.attributes["ceil_mode"] and counts:
        # ONNX Runtime's int8 pool divides by the whole window where ceil_mode cuts it. Powers of
        # two before and after the pool change no number and keep it in float32.
        values = [
            writer.add("Mul", *inputs, writer.constant("half", np.float32(0.5)), key="halved")
        ]
        gain = 2.0
    mean = writer.add("AveragePool", *values, count_include_pad=counts, **window)
    if gain != 1:
        writer.add("Mul", mean, writer.constant("gain", np.float32(gain)))


@_exporter("global_avg_pool")
def _global_avg_pool(writer: _Writer, node: Node, inputs: Sequence[str]) -> None:
    writer.add("GlobalAveragePool", *inputs)


@_exporter("adaptive_avg_pool2d", "adaptive_max_pool2d")
def _adaptive_pool2d(writer: _Writer, node: Node, inputs: Sequence[str]) -> None:
    maximum, target = "max" in node.op, node.attributes["size"]
    if tuple(target) == (1, 1):
        writer.add("GlobalMaxPool" if maximum else "GlobalAveragePool", *inputs)
        return
    size = writer.shape(node.inputs[0])[2:]
    if any(n is None or n % m for n, m in zip(size, target, strict=True)):
        raise UnsupportedError(
            f"{node.name}: ONNX has no windows of several sizes, or of open ones"
        )
    kernel = [(n or 0) // m for n, m in zip(size, target, strict=True)]
    pool = "MaxPool" if maximum else "AveragePool"
    writer.add(pool, *inputs, kernel_shape=kernel, strides=kernel)


@_exporter("softmax")
def _softmax(writer: _Writer, node: Node, inputs: Sequence[str]) -> None:
    writer.add("Softmax", *inputs, axis=1)


@_exporter("log_softmax")
def _log_softmax(writer: _Writer, node: Node, inputs: Sequence[str]) -> None:
    writer.add("LogSoftmax", *inputs, axis=1)


@_exporter("argmax")
def _argmax(writer: _Writer, node: Node, inputs: Sequence[str]) -> None:
    writer.add("Cast", writer.add("ArgMax", *inputs, axis=1, keepdims=1), to=1)  # FLOAT


@_exporter("slice")
def _slice(writer: _Writer, node: Node, inputs: Sequence[str]) -> None:
    stop = node.attributes["stop"]
    part = (
        node.attributes["start"],
        2**31 if stop is None else stop,
        node.attributes["axis"],
        node.attributes["step"],
    )
    names = ("starts", "ends", "axes", "steps")
    writer.add("Slice", *inputs, *map(writer.integers, names, ([n] for n in part)))


@_exporter("pad")
def _pad(writer: _Writer, node: Node, inputs: Sequence[str]) -> None:
    top, left, bottom, right = node.attributes["padding"]
    pads = writer.integers("pads", [0, 0, top, left, 0, 0, bottom, right])
    modes = {"zeros": "constant", "reflect": "reflect", "replicate": "edge"}
    writer.add("Pad", *inputs, pads, mode=modes[node.attributes["mode"]])


@_exporter("rearrange")
def _rearrange(writer: _Writer, node: Node, inputs: Sequence[str]) -> None:
    _reorder(writer, inputs[0], node.attributes["view"], node.attributes["order"])


def _reorder(
    writer: _Writer, tensor: str, view: Sequence[int | None], order: Sequence[int]
) -> None:
    """Sees images with the dimensions `view`, puts these in an order, and merges them to three."""
    seen = _reshape(writer, tensor, view, "seen")
    moved = writer.add("Transpose", seen, perm=[0, *(index + 1 for index in order)])
    sizes = [view[index] for index in order]
    if len(sizes) > 3:
        sizes = [math.prod(n or 1 for n in sizes[:-2]), *sizes[-2:]]
    _reshape(writer, moved, [*sizes, *[1] * (3 - len(sizes))], "merged")


def _reshape(writer: _Writer, tensor: str, sizes: Sequence[int | None], key: str) -> str:
    """The tensor with other dimensions behind the batch; two that are None are its last."""
    known = writer.integers(f"{key}/sizes", [n for n in sizes if n is not None])
    parts = [writer.add("Shape", tensor, start=0, end=1, key=f"{key}/batch"), known]
    if None in sizes:
        parts.append(writer.add("Shape", tensor, start=-2, key=f"{key}/last"))
    shape = writer.add("Concat", *parts, axis=0, key=f"{key}/shape")
    return writer.add("Reshape", tensor, shape, key=key)


@_exporter("concat")
def _concat(writer: _Writer, node: Node, inputs: Sequence[str]) -> None:
    writer.add("Concat", *inputs, axis=1)


@_exporter("resize")
def _resize(writer: _Writer, node: Node, inputs: Sequence[str]) -> None:
    # All four dimensions: ONNX Runtime moves channels and overlooks `axes` then.
    if "size" in node.attributes:
        unchanged = writer.add("Shape", *inputs, start=0, end=2, key="unchanged")
        known = writer.integers("size", node.attributes["size"])
        target = ["", writer.add("Concat", unchanged, known, axis=0, key="sizes")]
    else:
        if node.attributes.get("snap_scale"):
            raise UnsupportedError(
                f"{node.name}: ONNX has no resize by scales with snap_scale",
                closest="a network of fixed sizes",
            )
        scales = np.array([1, 1, *node.attributes["scale"]], np.float32)
        target = [writer.constant("scales", scales)]
    bilinear, exact = (node.attributes["mode"] == m for m in ("bilinear", "nearest-exact"))
    coordinates = "half_pixel" if bilinear or exact else "asymmetric"
    if node.attributes["align_corners"]:
        coordinates = "align_corners"
    writer.add(
        "Resize",
        *inputs,
        "",
        *target,
        mode="linear" if bilinear else "nearest",
        coordinate_transformation_mode=coordinates,
        nearest_mode="round_prefer_ceil" if exact else "floor",
    )


@_exporter("flatten")
def _flatten(writer: _Writer, node: Node, inputs: Sequence[str]) -> None:
    writer.add("Reshape", *inputs, writer.integers("shape", [0, -1, 1, 1]))


@_exporter("pixel_shuffle")
def _pixel_shuffle(writer: _Writer, node: Node, inputs: Sequence[str]) -> None:
    factor = node.attributes["upscale_factor"]
    writer.add("DepthToSpace", *inputs, blocksize=factor, mode="CRD")


@_exporter("pixel_unshuffle")
def _pixel_unshuffle(writer: _Writer, node: Node, inputs: Sequence[str]) -> None:
    factor = node.attributes["downscale_factor"]
    channels = writer.shape(node.inputs[0])[1]
    blocks = writer.add("SpaceToDepth", *inputs, blocksize=factor)  # of which channels come last
    _reorder(writer, blocks, (factor**2, channels, None, None), (1, 0, 2, 3))


def _window(node: Node) -> dict[str, Any]:
    return {
        "kernel_shape": node.attributes["kernel"],
        "strides": node.attributes["stride"],
        "pads": sides(node.attributes["padding"]),
        "ceil_mode": int(node.attributes["ceil_mode"]),
    }
