# SPDX-License-Identifier: Apache-2.0
"""Random networks of all operations, the same for the same seed."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import qppengine as qe
from networks import unary
from qppengine.operations.elementwise import UNARY

if TYPE_CHECKING:
    from collections.abc import Callable

    from qppengine.ir import Array

HEIGHT, WIDTH = 12, 14
MAX_CHANNELS = 32


class RandomNetwork:
    """Draws a network, one block at a time.

    Magnitudes stay near those of the inputs: weights are drawn for their fan-in, and what is
    multiplied is a gate within 0 and 1.
    """

    def __init__(self, seed: int, blocks: int = 8) -> None:
        self.rng = np.random.default_rng(seed)
        self.net = qe.GraphBuilder(f"random {seed}")
        self.values = [
            self.net.input(name, (None, int(self.rng.integers(1, 9)), HEIGHT, WIDTH))
            for name in ("x", "z")[: self.rng.integers(1, 3)]
        ]
        for value in tuple(self.values):  # so that all inputs count
            self.values.append(self.conv2d(value))
        for _ in range(blocks):
            block = BLOCKS[self.rng.integers(len(BLOCKS))]
            made = block(self, self.pick())
            if made is not None:
                self.values.append(made)
        self.end()

    def build(self) -> qe.Graph:
        return self.net.build()

    def end(self) -> None:
        """Outputs: a convolution of the last value and, often, of another."""
        last = self.conv2d(self.values[-1])
        self.net.output(last)
        if self.coin():
            heads: tuple[Callable[[str], str], ...] = (
                self.net.argmax,
                self.net.softmax,
                lambda x: self.net.softmax(x, log=True),
                self.net.flatten,
                lambda x: self.net.pad(x, (1, 0, 2, 1)),
            )
            self.net.output(heads[self.rng.integers(len(heads))](self.pick()))

    def pick(self, like: str | None = None) -> str:
        """A value, most often a late one; of the shape of `like`, if that is given."""
        candidates = [
            value
            for value in self.values
            if like is None or self.net.shape(value) == self.net.shape(like)
        ]
        return candidates[-1 - min(int(self.rng.geometric(0.5)) - 1, len(candidates) - 1)]

    def coin(self) -> bool:
        return bool(self.rng.integers(2))

    def choose(self, *options: Any) -> Any:
        return options[self.rng.integers(len(options))]

    def weight(self, *shape: int) -> Array:
        deviation = math.sqrt(1 / math.prod(shape[1:]))
        return self.rng.normal(0, deviation, shape).astype(np.float32)

    def vector(self, size: int, low: float, high: float) -> Array:
        return self.rng.uniform(low, high, size).astype(np.float32)

    def sizes(self, x: str) -> tuple[int, int, int]:
        """Channels, height and width."""
        _, channels, height, width = self.net.shape(x)
        assert channels is not None
        assert height is not None
        assert width is not None
        return channels, height, width

    def conv2d(self, x: str) -> str:
        channels, height, width = self.sizes(x)
        kernel = self.choose(1, 3, 3, 3, 5)
        groups = self.choose(1, 1, 1, math.gcd(channels, 4), channels)
        filters = groups * int(self.rng.integers(1, max(2, 16 // groups + 1)))
        stride = self.choose(1, 1, 1, 2) if min(height, width) > 5 else 1
        dilation = self.choose(1, 1, 2) if stride == 1 else 1
        bias = self.vector(filters, -0.1, 0.1) if self.coin() else None
        activation = self.choose("none", "relu", "relu", "tanh", "clamp")
        return self.net.conv2d(
            x,
            self.weight(filters, channels // groups, kernel, kernel),
            bias,
            stride=stride,
            padding=dilation * (kernel // 2),
            dilation=dilation,
            groups=groups,
            activation=activation,
            clamp=(-4, 6) if activation == "clamp" else None,
        )

    def conv_transpose2d(self, x: str) -> str | None:
        channels, height, width = self.sizes(x)
        if channels > 16 or height * width > 300:
            return None
        weight = self.weight(channels, int(self.rng.integers(1, 9)), 4, 4)
        return self.net.conv_transpose2d(x, weight, stride=2, padding=1)

    def residual(self, x: str) -> str:
        channels, _, _ = self.sizes(x)
        y = self.net.conv2d(x, self.weight(channels, channels, 3, 3), padding=1)
        return self.net.add(y, x, activation=self.choose("none", "relu"))

    def binary(self, x: str) -> str:
        other = self.pick(like=x)
        operation = self.choose(self.net.add, self.net.sub)
        return str(operation(x, other, activation=self.choose("none", "relu")))

    def gate(self, x: str) -> str:
        scores = self.net.global_avg_pool(x) if self.coin() else self.pick(like=x)
        return self.net.mul(x, self.net.unary(scores, self.choose("sigmoid", "hardsigmoid")))

    def activation(self, x: str) -> str:
        channels, _, _ = self.sizes(x)
        kind = self.choose("activation", "function", "prelu", "clamp")
        if kind == "activation":
            return self.net.activation(x, self.choose("relu", "tanh"))
        if kind == "function":
            return unary(self.net, x, self.choose(*UNARY))
        if kind == "prelu":
            return self.net.prelu(x, self.vector(channels, -0.3, 0.5))
        return self.net.clamp(x, -3, 3)

    def normalize(self, x: str) -> str:
        channels, _, _ = self.sizes(x)
        parts = [(0.5, 1.5), (-0.2, 0.2), (-0.2, 0.2), (0.5, 2)]
        return self.net.batch_norm(x, *(self.vector(channels, *part) for part in parts))

    def pool(self, x: str) -> str | None:
        _, height, width = self.sizes(x)
        if min(height, width) < 4:
            return None
        kind = self.choose("max", "average", "adaptive average", "adaptive max")
        if kind == "max":
            return self.net.max_pool2d(x, (3, 2), stride=self.choose(1, 2), padding=1)
        if kind == "average":
            return self.net.avg_pool2d(
                x, 3, stride=self.choose(1, 2), padding=1, count_include_pad=self.coin()
            )
        adaptive = self.net.adaptive_avg_pool2d if kind.endswith("average") else None
        return (adaptive or self.net.adaptive_max_pool2d)(x, (3, 4))

    def concat(self, x: str) -> str | None:
        _, height, width = self.sizes(x)
        fits = [
            value
            for value in self.values
            if self.sizes(value)[1:] == (height, width)
            and self.sizes(value)[0] + self.sizes(x)[0] <= MAX_CHANNELS
        ]
        return self.net.concat(x, self.choose(*fits)) if fits else None

    def resize(self, x: str) -> str:
        mode = self.choose("nearest", "nearest-exact", "bilinear")
        size = (int(self.rng.integers(3, 15)), int(self.rng.integers(3, 15)))
        return self.net.resize(x, size=size, mode=mode)

    def move(self, x: str) -> str | None:
        channels, height, width = self.sizes(x)
        kind = self.choose("slice", "pad", "shuffle", "unshuffle", "rearrange", "transpose")
        if kind == "slice":
            axis, size = self.choose((1, channels), (2, height), (3, width))
            return self.net.slice(x, axis, 1, None, self.choose(1, 2)) if size > 3 else None
        if kind == "pad" and max(height, width) < 20 and min(height, width) > 2:
            return self.net.pad(x, (1, 0, 2, 1), mode=self.choose("zeros", "reflect", "replicate"))
        if kind == "shuffle" and channels % 4 == 0 and height * width < 300:
            return self.net.pixel_shuffle(x, 2)
        if kind == "unshuffle" and channels <= 8 and height % 2 == width % 2 == 0:
            return self.net.pixel_unshuffle(x, 2)
        if kind == "rearrange" and channels % 2 == 0:
            return self.net.rearrange(x, (2, channels // 2, None, None), (1, 0, 2, 3))
        if kind == "transpose" and max(channels, height, width) <= MAX_CHANNELS:
            return self.net.rearrange(x, (channels, height, width), (2, 0, 1))
        return None


BLOCKS: tuple[Callable[[RandomNetwork, str], str | None], ...] = (
    RandomNetwork.conv2d,
    RandomNetwork.conv2d,
    RandomNetwork.conv2d,
    RandomNetwork.conv_transpose2d,
    RandomNetwork.residual,
    RandomNetwork.binary,
    RandomNetwork.gate,
    RandomNetwork.activation,
    RandomNetwork.normalize,
    RandomNetwork.pool,
    RandomNetwork.concat,
    RandomNetwork.resize,
    RandomNetwork.move,
)


def random_graph(seed: int) -> qe.Graph:
    return RandomNetwork(seed).build()
