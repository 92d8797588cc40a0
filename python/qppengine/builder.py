# SPDX-License-Identifier: Apache-2.0
"""A builder to write a `Graph` by hand, one operation a line."""

from __future__ import annotations

import itertools
import reprlib
from typing import TYPE_CHECKING, Any

import numpy as np

from qppengine.errors import ModelError, ShapeError, expect_type, listing
from qppengine.graph import Graph
from qppengine.ir import InputInfo, Node, channels_of
from qppengine.limits import DEFAULT_LIMITS, Limits
from qppengine.operations import infer_shape, node_problems

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from qppengine.ir import Array, Shape


class GraphBuilder:
    """Writes a `Graph` line by line; every method returns the name of the value it defines.

    >>> net = GraphBuilder("edges")
    >>> x = net.input("x", (1, 1, None, None))
    >>> y = net.conv2d(x, np.ones((4, 1, 3, 3), np.float32), padding=1, activation="relu")
    >>> net.output(net.pixel_shuffle(y, 2))
    >>> net.build().shapes["pixel_shuffle"]
    (1, 1, None, None)
    """

    def __init__(self, name: str, limits: Limits = DEFAULT_LIMITS) -> None:
        self._name = name
        self._limits = expect_type("limits", limits, Limits, "a Limits object")
        self._reserved = 0  # elements
        self._inputs: list[InputInfo] = []
        self._outputs: list[str] = []
        self._nodes: list[Node] = []
        self._taken: set[str] = set()  # names
        self._suffixes: dict[str, int] = {}  # the last one of each name
        self._shapes: dict[str, Shape] = {}  # of the inputs and of the first nodes
        self._shaped = 0  # how many nodes

    def input(self, name: str, shape: Sequence[int | None]) -> str:
        """An input of shape ``[N, C, H, W]``; ``None`` is any size."""
        expect_type("name", name, str, "a string")
        if not isinstance(sizes := _as_tuple(shape), tuple):
            raise ModelError(f"input {name!r}: expected a shape [N, C, H, W], got {shape!r}")
        self._inputs.append(InputInfo(name, sizes))
        self._taken.add(name)
        return name

    def conv2d(
        self,
        x: str,
        weight: npt.ArrayLike,
        bias: npt.ArrayLike | None = None,
        *,
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
        residual: str | None = None,
        activation: str = "none",
        clamp: Sequence[float] | None = None,
        name: str | None = None,
    ) -> str:
        """A zero-padded convolution, weight ``[O, I, kH, kW]``, bias ``[O]``, with activation.

        With groups, each of as many parts of the filters sees its own part of the channels. A
        residual is added before the activation.
        """
        attributes = {
            **_convolution_attributes(stride, padding, dilation, groups),
            **_activation_attributes(activation, clamp),
        }
        inputs = [x] if residual is None else [x, residual]
        return self._add("conv2d", inputs, name, attributes, _convolution_tensors(weight, bias))

    def conv_transpose2d(
        self,
        x: str,
        weight: npt.ArrayLike,
        bias: npt.ArrayLike | None = None,
        *,
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] = 0,
        output_padding: int | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
        name: str | None = None,
    ) -> str:
        """As `torch.nn.functional.conv_transpose2d`, weight ``[I, O / groups, kH, kW]``."""
        attributes = {
            **_convolution_attributes(stride, padding, dilation, groups),
            "output_padding": _as_pair(output_padding),
            "activation": "none",
        }
        tensors = _convolution_tensors(weight, bias)
        return self._add("conv_transpose2d", [x], name, attributes, tensors)

    def activation(
        self,
        x: str,
        activation: str,
        *,
        clamp: Sequence[float] | None = None,
        name: str | None = None,
    ) -> str:
        """One of `ACTIVATIONS` as an operation of its own."""
        return self._add(
            "activation", [x], name or activation, _activation_attributes(activation, clamp)
        )

    def relu(self, x: str, *, name: str | None = None) -> str:
        """``max(x, 0)``."""
        return self.activation(x, "relu", name=name)

    def tanh(self, x: str, *, name: str | None = None) -> str:
        """The hyperbolic tangent."""
        return self.activation(x, "tanh", name=name)

    def clamp(self, x: str, lo: float, hi: float, *, name: str | None = None) -> str:
        """``min(max(x, lo), hi)``."""
        return self.activation(x, "clamp", clamp=(lo, hi), name=name)

    def unary(self, x: str, op: str, *, name: str | None = None, **attributes: Any) -> str:
        """One of `UNARY`, element by element, with the attributes that it has."""
        return self._add(op, [x], name, attributes)

    def prelu(self, x: str, weight: npt.ArrayLike, *, name: str | None = None) -> str:
        """``max(x, 0) + weight * min(x, 0)``, weight ``[C]`` or ``[1]``."""
        return self._add("prelu", [x], name, {}, {"weight": weight})

    def batch_norm(
        self,
        x: str,
        weight: npt.ArrayLike,
        bias: npt.ArrayLike,
        mean: npt.ArrayLike,
        var: npt.ArrayLike,
        *,
        eps: float = 1e-5,
        name: str | None = None,
    ) -> str:
        """``(x - mean) / sqrt(var + eps) * weight + bias`` by channel; each tensor ``[C]``."""
        tensors = {"weight": weight, "bias": bias, "mean": mean, "var": var}
        return self._add("batch_norm", [x], name, {"eps": eps}, tensors)

    def affine(
        self, x: str, gain: npt.ArrayLike, shift: npt.ArrayLike, *, name: str | None = None
    ) -> str:
        """``x * gain + shift``, each ``[C]`` or one number: a batch normalization in disguise."""
        channels = channels_of(self.shape(x))
        self.reserve(8 * channels)  # until they are folded, too
        zeros, ones = np.zeros(channels, np.float32), np.ones(channels, np.float32)
        try:
            gain, shift = np.asarray(gain) * ones, np.asarray(shift) * ones
        except (TypeError, ValueError) as error:
            raise ModelError(
                f"{name or 'affine'}: expected gain and shift to be one number or {channels}, got "
                f"{reprlib.repr(gain)} and {reprlib.repr(shift)}"
            ) from error
        return self.batch_norm(x, gain, shift, zeros, ones, eps=0, name=name)

    def pixel_unshuffle(self, x: str, downscale_factor: int, *, name: str | None = None) -> str:
        """``[N, C, H * r, W * r]`` to ``[N, C * r * r, H, W]``, as `torch.nn.PixelUnshuffle`."""
        return self._add("pixel_unshuffle", [x], name, {"downscale_factor": downscale_factor})

    def pixel_shuffle(self, x: str, upscale_factor: int, *, name: str | None = None) -> str:
        """``[N, C * r * r, H, W]`` to ``[N, C, H * r, W * r]``, as `torch.nn.PixelShuffle`."""
        return self._add("pixel_shuffle", [x], name, {"upscale_factor": upscale_factor})

    def add(self, x: str, y: str, *, activation: str = "none", name: str | None = None) -> str:
        """``x + y``, with an activation "none" or "relu"."""
        return self._binary("add", x, y, activation, name)

    def sub(self, x: str, y: str, *, activation: str = "none", name: str | None = None) -> str:
        """``x - y``, with an activation "none" or "relu"."""
        return self._binary("sub", x, y, activation, name)

    def mul(self, x: str, y: str, *, activation: str = "none", name: str | None = None) -> str:
        """``x * y``, with an activation "none" or "relu"."""
        return self._binary("mul", x, y, activation, name)

    def max_pool2d(
        self,
        x: str,
        kernel: int | Sequence[int],
        *,
        stride: int | Sequence[int] | None = None,
        padding: int | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
        ceil_mode: bool = False,
        name: str | None = None,
    ) -> str:
        """The largest element of every window; padding never counts. The stride is the kernel."""
        attributes = _pool_attributes(kernel, stride, padding, ceil_mode)
        if _as_pair(dilation) != (1, 1):
            attributes["dilation"] = _as_pair(dilation)
        return self._add("max_pool2d", [x], name, attributes)

    def avg_pool2d(
        self,
        x: str,
        kernel: int | Sequence[int],
        *,
        stride: int | Sequence[int] | None = None,
        padding: int | Sequence[int] = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor: int | None = None,
        name: str | None = None,
    ) -> str:
        """The mean of every window, in which padding counts as zeros or not at all.

        With a divisor, the sum over it.
        """
        attributes = _pool_attributes(kernel, stride, padding, ceil_mode)
        attributes["count_include_pad"] = count_include_pad
        if divisor is not None:
            attributes["divisor"] = divisor
        return self._add("avg_pool2d", [x], name, attributes)

    def global_avg_pool(self, x: str, *, name: str | None = None) -> str:
        """The mean of every channel, ``[N, C, 1, 1]``."""
        return self._add("global_avg_pool", [x], name, {})

    def adaptive_avg_pool2d(
        self, x: str, size: int | Sequence[int], *, name: str | None = None
    ) -> str:
        """The means of as many windows as `size` says; of one, `global_avg_pool`."""
        if _as_pair(size) == (1, 1):
            return self.global_avg_pool(x, name=name)
        return self._add("adaptive_avg_pool2d", [x], name, {"size": _as_pair(size)})

    def adaptive_max_pool2d(
        self, x: str, size: int | Sequence[int], *, name: str | None = None
    ) -> str:
        """The largest elements of as many windows as `size` says."""
        return self._add("adaptive_max_pool2d", [x], name, {"size": _as_pair(size)})

    def softmax(self, x: str, *, log: bool = False, name: str | None = None) -> str:
        """The softmax over the channels, or its logarithm."""
        return self._add("log_softmax" if log else "softmax", [x], name, {})

    def argmax(self, x: str, *, name: str | None = None) -> str:
        """The index of the first largest channel, a float, ``[N, 1, H, W]``."""
        return self._add("argmax", [x], name, {})

    def slice(
        self,
        x: str,
        axis: int,
        start: int = 0,
        stop: int | None = None,
        step: int = 1,
        *,
        name: str | None = None,
    ) -> str:
        """``x[start:stop:step]`` along axis 1, 2 or 3."""
        attributes = {"axis": axis, "start": start, "stop": stop, "step": step}
        return self._add("slice", [x], name, attributes)

    def pad(
        self, x: str, padding: Sequence[int], *, mode: str = "zeros", name: str | None = None
    ) -> str:
        """Pixels added above, on the left, below and on the right; negative numbers remove some."""
        return self._add("pad", [x], name, {"padding": _as_tuple(padding), "mode": mode})

    def concat(self, *inputs: str, name: str | None = None) -> str:
        """The channels of all inputs, concatenated."""
        return self._add("concat", inputs, name, {})

    def resize(
        self,
        x: str,
        *,
        size: int | Sequence[int] | None = None,
        scale: float | Sequence[float] | None = None,
        mode: str = "nearest",
        align_corners: bool = False,
        snap_scale: bool = False,
        name: str | None = None,
    ) -> str:
        """As `torch.nn.functional.interpolate` in one of `RESIZE_MODES`.

        With a scale, PyTorch copies axes whose size does not change, and repeats each pixel of axes
        that become twice as long in mode "nearest": ``snap_scale``. ONNX does not.
        """
        attributes: dict[str, Any] = {"mode": mode, "align_corners": align_corners}
        if size is not None:
            attributes["size"] = _as_pair(size)
        if scale is not None:
            attributes["scale"] = _as_floats(
                (scale, scale) if isinstance(scale, (int, float)) else scale
            )
        if snap_scale:
            attributes["snap_scale"] = True
        return self._add("resize", [x], name, attributes)

    def flatten(self, x: str, *, name: str | None = None) -> str:
        """``[N, C * H * W, 1, 1]``, as `torch.flatten` orders it."""
        return self._add("flatten", [x], name, {})

    def rearrange(
        self,
        x: str,
        view: Sequence[int | None],
        order: Sequence[int] | None = None,
        *,
        name: str | None = None,
    ) -> str:
        """Every image reshaped, and its dimensions then permuted."""
        view = expect_type("view", _as_tuple(view), tuple, "a list of sizes")
        order = _as_tuple(range(len(view)) if order is None else order)
        return self._add("rearrange", [x], name, {"view": view, "order": order})

    def shape(self, name: str) -> Shape:
        """The shape of a value defined so far. Raises `ModelError` where a node is invalid."""
        expect_type("name", name, str, "the name of a value")
        inputs = tuple(self._inputs)
        if not self._shapes and inputs:
            self._shapes = dict(Graph(self._name, inputs, (inputs[0].name,), ()).shapes)
        while name not in self._shapes and self._shaped < len(self._nodes):
            node = self._nodes[self._shaped]
            self._shapes[node.output] = self._shape_of(node)
            self._shaped += 1
        if name not in self._shapes:
            raise ModelError(f"graph {self._name!r} has no value {name!r}")
        return self._shapes[name]

    def output(self, *names: str) -> None:
        """Declares values as the outputs of the network, in this order."""
        self._outputs += names

    def build(self) -> Graph:
        """The graph. Raises `ModelError` listing everything that is wrong with it."""
        return Graph(self._name, tuple(self._inputs), tuple(self._outputs), tuple(self._nodes))

    def reserve(self, elements: int) -> None:
        """Counts a tensor of so many elements, of which a number in a file is to be made.

        Raises `ModelError` if all of them exceed the limit ``computed_bytes``.
        """
        self._reserved += elements
        where = f"graph {self._name!r}: vectors made of single numbers"
        self._limits.check("computed_bytes", 4 * self._reserved, where)

    def unique(self, name: str) -> str:
        """`name`, or with the first free suffix ``_1``, ``_2``, ... when it is taken."""
        expect_type("name", name, str, "a string")
        first = self._suffixes.get(name, 0)  # all before are taken
        for suffix in itertools.count(first):
            candidate = f"{name}_{suffix}" if suffix else name
            if candidate not in self._taken:
                self._suffixes[name] = suffix
                return candidate
        raise AssertionError

    def _shape_of(self, node: Node) -> Shape:
        unknown = [value for value in node.inputs if value not in self._shapes]
        problems = [f"{node.name}: reads {value!r} before it is defined" for value in unknown]
        problems += [f"{node.name}: {problem}" for problem in node_problems(node)]
        try:
            if not problems:
                return infer_shape(node, [self._shapes[value] for value in node.inputs])
        except ShapeError as error:
            problems = [str(error)]
        raise ModelError(listing(f"graph {self._name!r} is invalid", problems))

    def _binary(self, op: str, x: str, y: str, activation: str, name: str | None) -> str:
        return self._add(op, [x, y], name, {"activation": activation})

    def _add(
        self,
        op: str,
        inputs: Sequence[str],
        name: str | None,
        attributes: Mapping[str, Any],
        tensors: Mapping[str, npt.ArrayLike] | None = None,
    ) -> str:
        name = self.unique(name or op)
        for value in inputs:
            expect_type(f"{name}: input", value, str, "the name of a value")
        arrays = {key: _as_float32(f"{name}.{key}", t) for key, t in (tensors or {}).items()}
        self._taken.add(name)
        self._nodes.append(Node(op, name, tuple(inputs), name, attributes, arrays))
        return name


def _as_pair(value: int | Sequence[int]) -> tuple[int, ...]:
    return (value, value) if isinstance(value, int) else _as_tuple(value)


def _as_tuple(items: Any) -> Any:
    """A list as a tuple; anything else as it is, which the check of the node refuses."""
    return tuple(items) if hasattr(items, "__iter__") else items


def _as_floats(items: Any) -> Any:
    """A list of numbers as a tuple of floats; anything else as it is."""
    try:
        return tuple(float(item) for item in items)
    except (TypeError, ValueError, OverflowError):
        return items


def _as_float32(name: str, numbers: npt.ArrayLike) -> Array:
    try:
        return np.ascontiguousarray(numbers, np.float32)
    except (TypeError, ValueError, OverflowError) as error:
        raise ModelError(
            f"{name}: expected an array of numbers, got {reprlib.repr(numbers)}"
        ) from error


def _convolution_attributes(
    stride: int | Sequence[int],
    padding: int | Sequence[int],
    dilation: int | Sequence[int],
    groups: int,
) -> dict[str, Any]:
    return {
        "stride": _as_pair(stride),
        "padding": _as_pair(padding),
        "dilation": _as_pair(dilation),
        **({} if groups == 1 else {"groups": groups}),
    }


def _convolution_tensors(
    weight: npt.ArrayLike, bias: npt.ArrayLike | None
) -> dict[str, npt.ArrayLike]:
    return {"weight": weight} if bias is None else {"weight": weight, "bias": bias}


def _pool_attributes(
    kernel: int | Sequence[int],
    stride: int | Sequence[int] | None,
    padding: int | Sequence[int],
    ceil_mode: bool,
) -> dict[str, Any]:
    return {
        "kernel": _as_pair(kernel),
        "stride": _as_pair(kernel if stride is None else stride),
        "padding": _as_pair(padding),
        "ceil_mode": ceil_mode,
    }


def _activation_attributes(activation: str, clamp: Sequence[float] | None) -> dict[str, Any]:
    if clamp is None:
        return {"activation": activation}
    return {"activation": activation, "clamp": _as_floats(clamp)}
