# SPDX-License-Identifier: Apache-2.0
"""Small networks of one operation or block each, which every importer and the engine must run.

`BLOCKS` stand between convolutions, `HEADS` end a network. Both are functions of two tensors
``[1, 12, H, W]``, of which the first is a ReLU's.
"""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from qppengine.graph import Array

CHANNELS = 12
HEIGHT, WIDTH = 13, 18


class Second(nn.Sequential):  # type: ignore[misc]
    """Modules that take the second tensor, one after the other."""

    def forward(self, a: Any, b: Any) -> Any:
        return super().forward(b)


class Net(nn.Module):  # type: ignore[misc]
    """Two convolutions of an image, what `function` makes of both, and maybe another of that."""

    def __init__(self, function: Callable[..., Any], *, tail: bool) -> None:
        super().__init__()
        self.function = function
        self.depthwise, self.grouped, self.slopes = DEPTHWISE, GROUPED, SLOPES
        self.left = nn.Conv2d(3, CHANNELS, 3, padding=1)
        self.right = nn.Conv2d(3, CHANNELS, 3, padding=1)
        self.tail = nn.Identity()
        if tail:
            block = function(*torch.rand(2, 1, CHANNELS, HEIGHT, WIDTH))
            self.tail = nn.Conv2d(block.shape[1], 10, 1)

    def forward(self, x: Any) -> Any:
        return self.tail(self.function(torch.relu(self.left(x)), self.right(x)))


def network(name: str, *, tail: bool) -> Any:
    """The network of one of `CASES`, with random weights."""
    torch.manual_seed(3)
    return Net(CASES[name], tail=tail).eval()


def images(count: int, height: int = HEIGHT, width: int = WIDTH) -> list[Array]:
    """Inputs of the networks, exact in fp16."""
    rng = np.random.default_rng(5)
    shape = (1, 3, height, width)
    return [rng.normal(0, 1, shape).astype(np.float16).astype(np.float32) for _ in range(count)]


def expected(module: Any, x: Array) -> Array:
    """What PyTorch computes, as the four dimensions that values have in a `Graph`."""
    with torch.no_grad():
        y = module(torch.from_numpy(x)).numpy()
    return np.asarray(y.reshape(*y.shape, *[1] * (4 - y.ndim)))


def to_onnx(module: Any, *inputs: Any, opset: int = 17, **options: Any) -> bytes:
    """A module as PyTorch's exporter that needs no further package writes it."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is called old
        torch.onnx.export(module, inputs, file, dynamo=False, opset_version=opset, **options)
    return file.getvalue()


_GENERATOR = torch.Generator().manual_seed(2)
DEPTHWISE = nn.Parameter(torch.rand(CHANNELS, 1, 3, 3, generator=_GENERATOR) - 0.4)
GROUPED = nn.Parameter(torch.rand(CHANNELS, 4, 3, 3, generator=_GENERATOR) - 0.4)
SLOPES = nn.Parameter(torch.rand(CHANNELS, generator=_GENERATOR) - 0.4)

BLOCKS: Mapping[str, Callable[[Any, Any], Any]] = {
    "add": lambda a, b: a + b,
    "add_relu": lambda a, b: F.relu(a + b),
    "add_clamp": lambda a, b: torch.clamp(b + a, -0.5, 1.5),
    "add_twice": lambda a, b: (b + b) + a,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "gate": lambda a, b: F.adaptive_avg_pool2d(a, 1) * b,
    "add_channels": lambda a, b: b + F.adaptive_avg_pool2d(a, 1),
    "swish": lambda a, b: b * torch.sigmoid(b),
    "squeeze_excite": lambda a, b: b * torch.sigmoid(F.adaptive_avg_pool2d(a, 1)),
    "max_pool_3x3s2": lambda a, b: F.max_pool2d(b, 3, 2, 1),
    "max_pool_2x2": lambda a, b: F.max_pool2d(a, 2),
    "max_pool_ceil": lambda a, b: F.max_pool2d(b, (3, 2), (2, 3), (1, 0), ceil_mode=True),
    "avg_pool_3x3s2": lambda a, b: F.avg_pool2d(b, 3, 2, 1),
    "avg_pool_inside": lambda a, b: F.avg_pool2d(b, 3, 2, 1, count_include_pad=False),
    "avg_pool_ceil": lambda a, b: F.avg_pool2d(b, (4, 3), (3, 2), (2, 1), ceil_mode=True),
    "global": lambda a, b: F.adaptive_avg_pool2d(b, 1),
    "mean": lambda a, b: a.mean((2, 3), keepdim=True),
    "adaptive": lambda a, b: F.adaptive_avg_pool2d(b, (1, 6)),
    "cat": lambda a, b: torch.cat([a, b], 1),
    "cat_ragged": lambda a, b: torch.cat([F.max_pool2d(a, 1), b, a + b], 1),
    "nearest": lambda a, b: F.interpolate(b, scale_factor=2),
    "nearest_size": lambda a, b: F.interpolate(b, size=(9, 31)),
    "bilinear": lambda a, b: F.interpolate(b, scale_factor=4, mode="bilinear"),
    "bilinear_pair": lambda a, b: F.interpolate(b, scale_factor=(0.5, 3.0), mode="bilinear"),
    "bilinear_aligned": lambda a, b: F.interpolate(
        b, (20, 37), mode="bilinear", align_corners=True
    ),
    "depthwise": lambda a, b: F.conv2d(b, DEPTHWISE, padding=1, groups=CHANNELS),
    "depthwise_s2": lambda a, b: F.relu(F.conv2d(b, DEPTHWISE, stride=2, groups=CHANNELS)),
    "grouped": lambda a, b: F.conv2d(b, GROUPED, padding=1, groups=3),
    "dilated": Second(nn.Conv2d(CHANNELS, 7, 3, padding=2, dilation=2)),
    "batch_norm": Second(nn.MaxPool2d(2), nn.BatchNorm2d(CHANNELS), nn.ReLU()),
    "sigmoid": lambda a, b: torch.sigmoid(b),
    "silu": lambda a, b: F.silu(b),
    "hardsigmoid": lambda a, b: F.hardsigmoid(b),
    "hardswish": lambda a, b: F.hardswish(b),
    "tanh": lambda a, b: torch.tanh(b),
    "relu6": lambda a, b: F.relu6(b),
    "leaky_relu": lambda a, b: F.leaky_relu(b, 0.2),
    "prelu": lambda a, b: F.prelu(b, SLOPES),
    "pixel_shuffle": lambda a, b: F.pixel_shuffle(b, 2),
    "dropped": lambda a, b: F.dropout(b.contiguous(), training=False).clone().detach(),
}

HEADS: Mapping[str, Callable[[Any, Any], Any]] = {
    "flatten": lambda a, b: torch.flatten(b, 1),
    "view": lambda a, b: b.view(1, -1),
}

CASES = {**BLOCKS, **HEADS}
