# SPDX-License-Identifier: Apache-2.0
"""Small networks of one operation or block each, which every importer and the engine must run.

`BLOCKS` are between convolutions, `HEADS` at the end. Both are functions of two tensors
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

    from qppengine.ir import Array

CHANNELS = 12
HEIGHT, WIDTH = 13, 18


class Second(nn.Sequential):  # type: ignore[misc]
    """Modules that take the second tensor, one after the other."""

    def forward(self, a: Any, b: Any) -> Any:
        return super().forward(b)


class Net(nn.Module):  # type: ignore[misc]
    """Two convolutions of an image, `function` of both, and optionally a third convolution."""

    def __init__(self, function: Callable[..., Any], *, tail: bool) -> None:
        super().__init__()
        self.function = function
        self.constants = nn.ParameterList([DEPTHWISE, GROUPED, SLOPES, SCALES, MEANS])
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
    """What PyTorch computes; a matrix as the image that it is in a `Graph`."""
    with torch.no_grad():
        y = module(torch.from_numpy(x)).numpy()
    return np.asarray(y.reshape(*y.shape, 1, 1) if y.ndim == 2 else y, np.float32)


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
SCALES = nn.Parameter(torch.rand(1, CHANNELS, 1, 1, generator=_GENERATOR) + 0.3)
MEANS = nn.Parameter(torch.rand(1, CHANNELS, 1, 1, generator=_GENERATOR) - 0.5)
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
    "gate_minus": lambda a, b: F.adaptive_avg_pool2d(a, 1) - b,
    "spatial_gate": lambda a, b: a * torch.sigmoid(b.mean(1, keepdim=True)),
    "first_channel": lambda a, b: a[:, :1] - b,
    "column_and_row_gates": lambda a, b: (
        b * torch.sigmoid(F.max_pool2d(a, (1, WIDTH))) + F.max_pool2d(b, (HEIGHT, 1))
    ),
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
    "add_number": lambda a, b: b + 0.75,
    "affine": lambda a, b: (1.5 - b * 2) / 3 - SLOPES[:, None, None],
    "scale_channels": lambda a, b: F.max_pool2d(b, 2) * SCALES,
    "negative": lambda a, b: -F.max_pool2d(b, 2),
    "negative_of_convolution": lambda a, b: torch.cat([a, -b], 1),
    "abs": lambda a, b: torch.abs(b),
    "exp": lambda a, b: torch.exp(b),
    "sqrt": lambda a, b: torch.sqrt(a),
    "square": lambda a, b: b**2,
    "cube": lambda a, b: b**3,
    "power": lambda a, b: (a + 0.5) ** -1.7,
    "elu": lambda a, b: F.elu(b, 0.7),
    "celu": lambda a, b: F.celu(b, 0.7),
    "gelu": lambda a, b: F.gelu(b),
    "gelu_tanh": lambda a, b: F.gelu(b, approximate="tanh"),
    "softplus": lambda a, b: F.softplus(b),
    "softplus_of_half": lambda a, b: F.softplus(b, 0.5, 30),
    "mish": lambda a, b: F.mish(b),
    "erf": lambda a, b: torch.erf(b),
    "weighted_sum": lambda a, b: torch.add(a, b, alpha=0.5),
    "weighted_difference": lambda a, b: torch.rsub(a, b, alpha=2),
    "standardize": lambda a, b: (a - MEANS) / SCALES,
    "max_pool_dilated": lambda a, b: F.max_pool2d(b, (3, 2), 1, 1, dilation=(2, 3)),
    "avg_pool_divisor": lambda a, b: F.avg_pool2d(b, 2, divisor_override=3),
    "adaptive_uneven": lambda a, b: F.adaptive_avg_pool2d(b, (5, 7)),
    "adaptive_larger": lambda a, b: F.adaptive_avg_pool2d(b, (20, 18)),
    "adaptive_max": lambda a, b: F.adaptive_max_pool2d(b, (4, 5)),
    "global_max": lambda a, b: a * torch.sigmoid(b.amax((2, 3), keepdim=True)),
    "mean_of_channels": lambda a, b: torch.cat([a, b.mean(1, keepdim=True)], 1),
    "conv_transpose": Second(nn.ConvTranspose2d(CHANNELS, 9, 2, 2), nn.BatchNorm2d(9), nn.ReLU()),
    "conv_transpose_odd": Second(nn.ConvTranspose2d(CHANNELS, 6, 3, 2, 1, output_padding=1)),
    "conv_transpose_cut": Second(nn.ConvTranspose2d(CHANNELS, 6, 3, 2, 1, bias=False)),
    "conv_transpose_s3": Second(nn.ConvTranspose2d(CHANNELS, 5, (5, 4), 3, (2, 0), dilation=2)),
    "conv_transpose_s1": Second(nn.ConvTranspose2d(CHANNELS, 5, 3, 1, 1)),
    "conv_transpose_grouped": Second(nn.ConvTranspose2d(CHANNELS, 8, 4, 2, 1, groups=2)),
    "even_same": Second(nn.Conv2d(CHANNELS, 7, (2, 4), padding="same")),
    "zero_padded": Second(nn.ZeroPad2d((0, 1, 2, 0)), nn.Conv2d(CHANNELS, 7, 3, 2)),
    "cropped": lambda a, b: F.pad(b, (-1, 2, 1, -3)),
    "reflected": Second(nn.Conv2d(CHANNELS, 7, 3, padding=1, padding_mode="reflect")),
    "replicated": Second(nn.ReplicationPad2d((2, 1, 0, 3))),
    "slice_channels": lambda a, b: b[:, 2:-1],
    "slice_pixels": lambda a, b: b[:, :, 1:, 2:-3:2],
    "focus": lambda a, b: torch.cat([b[..., 1::2, ::2], b[..., 1::2, 1::2]], 1),
    "chunk": lambda a, b: torch.cat(b.chunk(2, 1)[::-1], 1),
    "split": lambda a, b: torch.cat(torch.split(b, [3, 4, 5], 1)[1:], 1),
    "narrow": lambda a, b: b.narrow(2, 3, 6),
    "channel_shuffle": lambda a, b: b.view(1, 3, 4, 13, 18).transpose(1, 2).reshape(1, 12, 13, 18),
    "pixel_unshuffle": lambda a, b: F.pixel_unshuffle(b[:, :, 1:], 2),
    "nearest_exact": lambda a, b: F.interpolate(b, size=(9, 31), mode="nearest-exact"),
    "transposed": lambda a, b: b.transpose(2, 3),
    "dropped": lambda a, b: F.dropout(b.contiguous(), training=False).clone().detach(),
}

HEADS: Mapping[str, Callable[[Any, Any], Any]] = {
    "flatten": lambda a, b: torch.flatten(b, 1),
    "view": lambda a, b: b.view(1, -1),
    "softmax": lambda a, b: torch.softmax(b, 1),
    "log_softmax": lambda a, b: F.log_softmax(b, dim=1),
    "softmax_of_scores": lambda a, b: torch.softmax(b.mean((2, 3)), -1),
    "softmax_of_columns": lambda a, b: torch.softmax(b, 3),
    "argmax": lambda a, b: b.argmax(1, keepdim=True),
    "argmax_of_map": lambda a, b: b.argmax(1),
    "channels_last": lambda a, b: b.permute(0, 2, 3, 1),
    "anchors": lambda a, b: b.view(1, 3, 4, 13, 18).permute(0, 1, 3, 4, 2).contiguous(),
    "predictions": lambda a, b: b.flatten(2).permute(0, 2, 1),
    "cat_of_predictions": lambda a, b: torch.cat([a.flatten(2), b.flatten(2)], 2).transpose(1, 2),
    "box_and_scores": lambda a, b: torch.cat([b[:, :4] * 2 - 0.5, torch.sigmoid(b[:, 4:])], 1),
    "squeezed": lambda a, b: b.amax((2, 3), keepdim=True).squeeze(-1).squeeze(-1).unsqueeze(2),
}

CASES = {**BLOCKS, **HEADS}

# What PyTorch's exporter does not write, or without an argument that changes the result.
NOT_IN_ONNX = {
    "adaptive_larger",
    "adaptive_max",
    "adaptive_uneven",
    "avg_pool_divisor",
    "nearest_exact",
}
