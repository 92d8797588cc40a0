# SPDX-License-Identifier: Apache-2.0
"""Rounds the weights of int8 layers so that the outputs of the layers change little.

A convolution sums products of its weights with a window of its input. Let e be the rounding errors
of the weights of a filter, m the mean of the windows over calibration samples, and C their
covariance. Rounding moves the output by e·m in the mean, which the bias takes back. The rest of the
error has the mean square e·C·e, which is small where the errors of correlated elements cancel.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from qppengine.errors import CalibrationError, Error
from qppengine.ir import sides
from qppengine.model_file import serialize
from qppengine.passes import optimize
from qppengine.samples import split_batches, with_open_batch, with_progress
from qppengine.session import Session

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import numpy.typing as npt

    from qppengine.graph import Graph
    from qppengine.ir import Array, Node

    Floats = npt.NDArray[np.float64]

METHODS = ("round", "bias", "feedback")

_INT8_TENSORS = ("int8_weight", "int8_scale", "int8_bias")
_MAX_WINDOWS = 1024  # of a layer and sample, of which the covariance is measured
_MAX_COLUMNS = 1024  # elements of a window that are rounded together
_GOLDEN = (5**0.5 - 1) / 2
# Part of the mean variance that is added to every variance. Few samples determine small
# eigenvalues badly: less fits the calibration set better, and other samples worse.
_DAMPING = 0.3


def quantize_weights(
    graph: Graph, samples: Iterable[Any], method: str = "feedback", *, progress: bool = True
) -> Graph:
    """The optimized graph with weights for int8 runs, rounded on the inputs of its layers.

    Runs in scheme "fp16", and layers that compute with fp16 weights, are not affected: these are
    layers that keep fp16, and those by Winograd's algorithm.

    Args:
        graph: The network.
        samples: Inputs of the network, as `calibrate` takes them; 32 or more, of many scenes.
        method: "round" is rounding to nearest, without samples. "bias" also corrects the bias by
            the mean error. "feedback" rounds one element after the other and adjusts the remaining
            ones to the error so far (Hassibi and Stork's optimal brain surgeon), then corrects the
            bias. No filter has a larger error on the samples than with "bias".
        progress: Whether to show a progress bar (needs tqdm).

    Raises `CalibrationError` for another method and an empty set, and for a sample that does not
    fit `ShapeError`, `DTypeError` or `NonFiniteError` with its index.
    """
    if method not in METHODS:
        raise CalibrationError(f"method: expected one of {', '.join(METHODS)}, got {method!r}")
    graph = _without_int8_weights(optimize(graph))
    layers = {
        node.name: _Layer(node, covariance=method == "feedback")
        for node in graph.nodes
        if node.op == "conv2d" and graph.reads_int8(node)
    }
    if method == "round" or not layers:
        return graph
    session = Session(serialize(with_open_batch(graph)), scheme="fp16")
    count = 0
    for sample in split_batches(with_progress(samples, progress, "weights")):
        try:
            values = _values(graph, session, sample)
        except Error as error:
            raise type(error)(f"sample {count}: {error}") from error
        for layer in layers.values():
            layer.add(values[layer.node.inputs[0]])
        count += 1
    if not count:
        raise CalibrationError("samples: expected at least one, got 0")
    nodes = (layers[n.name].rounded() if n.name in layers else n for n in graph.nodes)
    return replace(graph, nodes=tuple(nodes))


def _without_int8_weights(graph: Graph) -> Graph:
    nodes = (
        replace(node, tensors={k: t for k, t in node.tensors.items() if k not in _INT8_TENSORS})
        for node in graph.nodes
    )
    return replace(graph, nodes=tuple(nodes))


def _values(graph: Graph, session: Session, sample: Any) -> Mapping[str, Array]:
    """Every value of a run by name, ``[1, C, H, W]``."""
    inputs = sample if isinstance(sample, tuple) else (sample,)
    values = {step.value: step.numbers for step in session.observe(*inputs)}
    names = [value.name for value in graph.inputs]
    given = inputs[0] if isinstance(inputs[0], dict) else dict(zip(names, inputs, strict=True))
    return values | {name: np.asarray(given[name]) for name in names}


class _Layer:
    """The windows of a convolution's input: their mean and covariance, by group.

    K is the number of elements of a window.
    """

    def __init__(self, node: Node, *, covariance: bool) -> None:
        self.node = node
        weight = node.tensors["weight"]
        self._groups: int = node.attributes.get("groups", 1)
        self._columns = weight[0].size
        blocks = -(-self._columns // _MAX_COLUMNS) if covariance else 0
        self._blocks = np.array_split(np.arange(self._columns), blocks) if blocks else []
        self._sums = np.zeros((self._groups, self._columns))
        self._count = 0
        # Of the windows that are sampled, less their mean in the first sample.
        self._shift: Array | None = None
        self._window_sums = np.zeros((self._groups, self._columns))
        self._products = [np.zeros((self._groups, len(b), len(b))) for b in self._blocks]
        self._windows = 0

    def add(self, x: Array) -> None:
        """Adds the windows of an input ``[1, C, H, W]``, zero padding included."""
        taps = _taps(self.node, x)
        _, height, width = taps[0].shape
        self._sums += self._by_group([tap.sum((1, 2), dtype=np.float64) for tap in taps])
        self._count += height * width
        if not self._blocks:
            return
        rows, columns = np.divmod(_spread(height * width), width)
        windows = self._by_group([tap[:, rows, columns] for tap in taps])  # [G, K, windows]
        if self._shift is None:
            self._shift = windows.mean(2, keepdims=True)
        windows -= self._shift
        self._window_sums += windows.sum(2)
        self._windows += windows.shape[2]
        for block, products in zip(self._blocks, self._products, strict=True):
            part = windows[:, block]
            products += part @ part.transpose(0, 2, 1)

    def rounded(self) -> Node:
        """The convolution with weights for int8 runs."""
        weight = self.node.tensors["weight"]
        exact = weight.reshape(self._groups, -1, self._columns).astype(np.float64)
        scale = _scales(exact)
        levels = np.rint(exact / scale)
        for block, products in zip(self._blocks, self._products, strict=True):
            mean = self._window_sums[:, block] / self._windows
            covariance = products / self._windows - mean[:, :, None] * mean[:, None, :]
            levels[:, :, block] = _round(exact[:, :, block], scale, covariance)
        errors = exact - levels * scale
        shift = np.einsum("gok,gk->go", errors, self._sums / self._count).ravel()
        bias = self.node.tensors.get("bias", np.zeros(len(weight), np.float32))
        tensors = {
            "int8_weight": levels.reshape(weight.shape).astype(np.float32),
            "int8_scale": scale.ravel().astype(np.float32),
            "int8_bias": (bias + shift).astype(np.float32),
        }
        return replace(self.node, tensors={**self.node.tensors, **tensors})

    def _by_group(self, taps: list[Any]) -> Any:
        """Arrays ``[C, ...]`` by tap as one of ``[G, K, ...]``, in the order of the weights."""
        stacked = np.stack(taps, 1)
        return stacked.reshape(self._groups, self._columns, *stacked.shape[2:])


def _taps(node: Node, x: Array) -> list[Array]:
    """For every element of the kernel, the input that it meets: ``[C, H, W]`` of the output."""
    kernel = node.tensors["weight"].shape[2:]
    stride, dilation = node.attributes["stride"], node.attributes["dilation"]
    top, left, bottom, right = sides(node.attributes["padding"])
    before, after = (max(top, 0), max(left, 0)), (max(bottom, 0), max(right, 0))
    padded = np.pad(x[0], ((0, 0), (before[0], after[0]), (before[1], after[1])))
    height, width = padded.shape[1:]  # negative padding crops
    padded = padded[
        :, before[0] - top : height - after[0] + bottom, before[1] - left : width - after[1] + right
    ]
    ends = [
        size - step * (taps - 1)
        for size, step, taps in zip(padded.shape[1:], dilation, kernel, strict=True)
    ]
    return [
        padded[
            :,
            i * dilation[0] : i * dilation[0] + ends[0] : stride[0],
            j * dilation[1] : j * dilation[1] + ends[1] : stride[1],
        ]
        for i, j in np.ndindex(*kernel)
    ]


def _spread(count: int) -> npt.NDArray[np.int64]:
    """Up to `_MAX_WINDOWS` evenly spread numbers below `count`, none of them twice."""
    if count <= _MAX_WINDOWS:
        return np.arange(count)
    return np.unique((np.arange(_MAX_WINDOWS) * _GOLDEN % 1 * count).astype(np.int64))


def _scales(weight: Floats) -> Floats:
    """max|w| / 127 of every filter, as float32 holds it, ``[G, O, 1]``."""
    scale = (np.abs(weight).max(axis=2, keepdims=True) / 127).astype(np.float32)
    return np.where(scale < np.finfo(np.float32).tiny, 1, scale).astype(np.float64)


def _round(weight: Floats, scale: Floats, covariance: Floats) -> Floats:
    """Levels of weights ``[G, O, K]``, of each filter the better ones of two roundings."""
    nearest = np.rint(weight / scale)
    found = _feed_back(weight, scale, covariance)
    before, after = (
        np.einsum("gok,gok->go", errors @ covariance, errors)
        for errors in (weight - nearest * scale, weight - found * scale)
    )
    return np.where((after < before)[:, :, None], found, nearest)


def _feed_back(weight: Floats, scale: Floats, covariance: Floats) -> Floats:
    """Rounds columns in the order of their variance, and adjusts the others to the error.

    With the inverse of C = U^T U, U upper triangular, the error e of column j is best taken back by
    weights -= e / U[j, j] * U[j, j + 1:]. Blocks of columns collect their errors for the others.
    """
    group = np.arange(len(weight))[:, None]
    variance = np.einsum("gkk->gk", covariance)
    order = np.argsort(-variance, axis=1)
    damping = _DAMPING * variance.mean(1)
    damping = np.where(damping > 0, damping, 1)[:, None, None] * np.eye(weight.shape[2])
    ordered = (covariance + damping)[group[:, :, None], order[:, :, None], order[:, None, :]]
    upper = np.linalg.cholesky(np.linalg.inv(ordered)).transpose(0, 2, 1)
    left = np.take_along_axis(weight, order[:, None, :], 2)
    levels = np.empty_like(left)
    block, columns = 64, weight.shape[2]
    for first in range(0, columns, block):
        end = min(first + block, columns)
        errors = np.empty((*left.shape[:2], end - first))
        for j in range(first, end):
            levels[:, :, j] = np.clip(np.rint(left[:, :, j] / scale[:, :, 0]), -127, 127)
            error = left[:, :, j] - levels[:, :, j] * scale[:, :, 0]
            errors[:, :, j - first] = error / upper[:, None, j, j]
            left[:, :, j + 1 : end] -= (
                errors[:, :, j - first, None] * upper[:, None, j, j + 1 : end]
            )
        left[:, :, end:] -= errors @ upper[:, first:end, end:]
    result = np.empty_like(levels)
    np.put_along_axis(result, np.broadcast_to(order[:, None, :], levels.shape), levels, 2)
    return result
