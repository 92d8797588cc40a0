# SPDX-License-Identifier: Apache-2.0
"""Networks of well-known families as PyTorch modules: after their papers, narrow and shallow.

The structure is that of torchvision's models, and of a detector with three outputs; width, depth
and resolution are small, so that each runs in a moment.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

CLASSES = 10


def unit(
    inputs: int,
    outputs: int,
    kernel: int = 3,
    stride: int = 1,
    groups: int = 1,
    activation: Callable[[], Any] | None = nn.ReLU,
) -> Any:
    """A convolution, its batch normalization, and maybe an activation."""
    padding = kernel // 2
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)
    tail = [activation()] if activation is not None else []
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), *tail)


class SqueezeExcitation(nn.Module):  # type: ignore[misc]
    """Gates of channels, from their means (Hu et al., CVPR 2018)."""

    def __init__(self, channels: int, squeezed: int, activation: Any, gate: Any) -> None:
        super().__init__()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)
        self.activation, self.gate = activation(), gate()

    def forward(self, x: Any) -> Any:
        return self.gate(self.fc2(self.activation(self.fc1(self.avgpool(x))))) * x


class StochasticDepth(nn.Module):  # type: ignore[misc]
    """A branch that is dropped now and then in training, and never after it."""

    def forward(self, x: Any) -> Any:
        if not self.training:
            return x
        return x * torch.bernoulli(torch.full((len(x), 1, 1, 1), 0.8)) / 0.8


class InvertedResidual(nn.Module):  # type: ignore[misc]
    """Wide inside: 1x1, depthwise, maybe gates, 1x1, and the input as residual."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        expansion: int,
        stride: int = 1,
        kernel: int = 3,
        activation: Any = nn.ReLU6,
        gates: Any = None,
    ) -> None:
        super().__init__()
        wide = inputs * expansion
        layers = [unit(inputs, wide, 1, activation=activation)] if expansion > 1 else []
        layers.append(unit(wide, wide, kernel, stride, groups=wide, activation=activation))
        if gates is not None:
            layers.append(gates(wide, max(wide // 4, 4)))
        layers.append(unit(wide, outputs, 1, activation=None))
        self.block = nn.Sequential(*layers)
        self.drop_path = StochasticDepth()
        self.adds = stride == 1 and inputs == outputs

    def forward(self, x: Any) -> Any:
        y = self.block(x)
        return x + self.drop_path(y) if self.adds else y


class Classifier(nn.Module):  # type: ignore[misc]
    """Features, their means, and a linear layer or several."""

    def __init__(self, features: Any, *classifier: Any) -> None:
        super().__init__()
        self.features = features
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(*classifier)

    def forward(self, x: Any) -> Any:
        return self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))


def mobilenet_v2() -> Any:
    """Sandler et al., CVPR 2018."""
    return Classifier(
        nn.Sequential(
            unit(3, 16, stride=2, activation=nn.ReLU6),
            InvertedResidual(16, 8, 1),
            InvertedResidual(8, 12, 6, stride=2),
            InvertedResidual(12, 12, 6),
            InvertedResidual(12, 16, 6, stride=2),
            InvertedResidual(16, 16, 6),
            unit(16, 64, 1, activation=nn.ReLU6),
        ),
        nn.Dropout(0.2),
        nn.Linear(64, CLASSES),
    )


def mobilenet_v3() -> Any:
    """Howard et al., ICCV 2019."""

    def gates(channels: int, squeezed: int) -> Any:
        return SqueezeExcitation(channels, squeezed, nn.ReLU, nn.Hardsigmoid)

    return Classifier(
        nn.Sequential(
            unit(3, 16, stride=2, activation=nn.Hardswish),
            InvertedResidual(16, 16, 1, stride=2, activation=nn.ReLU, gates=gates),
            InvertedResidual(16, 24, 3, activation=nn.ReLU),
            InvertedResidual(24, 24, 3, kernel=5, activation=nn.Hardswish, gates=gates),
            unit(24, 48, 1, activation=nn.Hardswish),
        ),
        nn.Linear(48, 64),
        nn.Hardswish(),
        nn.Dropout(0.2),
        nn.Linear(64, CLASSES),
    )


def efficientnet_b0() -> Any:
    """Tan and Le, ICML 2019."""

    def gates(channels: int, squeezed: int) -> Any:
        return SqueezeExcitation(channels, squeezed, nn.SiLU, nn.Sigmoid)

    return Classifier(
        nn.Sequential(
            unit(3, 16, stride=2, activation=nn.SiLU),
            InvertedResidual(16, 8, 1, activation=nn.SiLU, gates=gates),
            InvertedResidual(8, 12, 6, stride=2, activation=nn.SiLU, gates=gates),
            InvertedResidual(12, 12, 6, activation=nn.SiLU, gates=gates),
            InvertedResidual(12, 16, 6, stride=2, kernel=5, activation=nn.SiLU, gates=gates),
            unit(16, 64, 1, activation=nn.SiLU),
        ),
        nn.Dropout(0.2, inplace=True),
        nn.Linear(64, CLASSES),
    )


class VGG(nn.Module):  # type: ignore[misc]
    """Simonyan and Zisserman, ICLR 2015, with batch normalization."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *(unit(3, 16), unit(16, 16), nn.MaxPool2d(2)),
            *(unit(16, 24), unit(24, 24), nn.MaxPool2d(2)),
            *(unit(24, 32), unit(32, 32), nn.MaxPool2d(2)),
        )
        self.avgpool = nn.AdaptiveAvgPool2d((3, 3))
        self.classifier = nn.Sequential(
            *(nn.Linear(32 * 9, 64), nn.ReLU(True), nn.Dropout()),
            *(nn.Linear(64, 64), nn.ReLU(True), nn.Dropout()),
            nn.Linear(64, CLASSES),
        )

    def forward(self, x: Any) -> Any:
        return self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))


class Fire(nn.Module):  # type: ignore[misc]
    """A squeeze, and expansions of two kernel sizes side by side."""

    def __init__(self, inputs: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, expanded, 1)
        self.expand3x3 = nn.Conv2d(squeezed, expanded, 3, padding=1)

    def forward(self, x: Any) -> Any:
        x = F.relu(self.squeeze(x), inplace=True)
        return torch.cat([F.relu(self.expand1x1(x)), F.relu(self.expand3x3(x))], 1)


def squeezenet() -> Any:
    """Iandola et al., 2016."""
    return nn.Sequential(
        *(nn.Conv2d(3, 24, 3, stride=2), nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True)),
        *(Fire(24, 8, 16), Fire(32, 8, 16), nn.MaxPool2d(3, 2, ceil_mode=True)),
        *(Fire(32, 12, 24), nn.Dropout(), nn.Conv2d(48, CLASSES, 1), nn.ReLU(inplace=True)),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    )


class DenseLayer(nn.Module):  # type: ignore[misc]
    """Normalization and ReLU before both convolutions; output and input concatenated."""

    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = (
            nn.BatchNorm2d(inputs),
            nn.Conv2d(inputs, 2 * growth, 1, bias=False),
        )
        self.norm2 = nn.BatchNorm2d(2 * growth)
        self.conv2 = nn.Conv2d(2 * growth, growth, 3, padding=1, bias=False)

    def forward(self, x: Any) -> Any:
        y = self.conv1(F.relu(self.norm1(x)))
        return torch.cat([x, self.conv2(F.relu(self.norm2(y)))], 1)


def densenet() -> Any:
    """Huang et al., CVPR 2017."""
    return Classifier(
        nn.Sequential(
            *(unit(3, 16, 7, 2), nn.MaxPool2d(3, 2, 1)),
            *(DenseLayer(16, 8), DenseLayer(24, 8)),
            *(nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 16, 1, bias=False), nn.AvgPool2d(2)),
            *(DenseLayer(16, 8), DenseLayer(24, 8)),
            *(nn.BatchNorm2d(32), nn.ReLU()),
        ),
        nn.Linear(32, CLASSES),
    )


class UNet(nn.Module):  # type: ignore[misc]
    """Ronneberger et al., MICCAI 2015: transposed convolutions, concatenated with the encoder."""

    def __init__(self, widths: tuple[int, ...] = (12, 16, 24)) -> None:
        super().__init__()
        self.encoder = nn.ModuleList(
            nn.Sequential(unit(inputs, width), unit(width, width))
            for inputs, width in zip((3, *widths), widths, strict=False)
        )
        pairs = list(zip(widths[::-1], widths[-2::-1], strict=False))
        self.up = nn.ModuleList(nn.ConvTranspose2d(deep, flat, 2, 2) for deep, flat in pairs)
        self.decoder = nn.ModuleList(
            nn.Sequential(unit(2 * flat, flat), unit(flat, flat)) for _, flat in pairs
        )
        self.head = nn.Conv2d(widths[0], 4, 1)

    def forward(self, x: Any) -> Any:
        skips = []
        for level, block in enumerate(self.encoder):
            x = block(F.max_pool2d(x, 2) if level else x)
            skips.append(x)
        for up, block, skip in zip(self.up, self.decoder, skips[-2::-1], strict=True):
            x = block(torch.cat([skip, up(x)], 1))
        return self.head(x)


class Bottlenecks(nn.Module):  # type: ignore[misc]
    """Half of the channels pass by the blocks, as in cross-stage partial networks."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.enter = unit(channels, channels, 1, activation=nn.SiLU)
        self.block = unit(channels // 2, channels // 2, activation=nn.SiLU)
        self.leave = unit(3 * channels // 2, channels, 1, activation=nn.SiLU)

    def forward(self, x: Any) -> Any:
        aside, y = self.enter(x).chunk(2, 1)
        return self.leave(torch.cat([aside, y, y + self.block(y)], 1))


class Detector(nn.Module):  # type: ignore[misc]
    """A one-stage detector: a backbone, a path back up, and predictions at two scales.

    Of each scale: ``[N, anchors, H, W, 4 + 1 + classes]``; and all boxes as a list.
    """

    anchors, numbers = 3, 4 + 1 + 4

    def __init__(self) -> None:
        super().__init__()
        self.stem = unit(12, 16, activation=nn.SiLU)
        self.down1 = nn.Sequential(unit(16, 24, 3, 2, activation=nn.SiLU), Bottlenecks(24))
        self.down2 = nn.Sequential(unit(24, 32, 3, 2, activation=nn.SiLU), Bottlenecks(32))
        self.pools = nn.ModuleList(nn.MaxPool2d(k, 1, k // 2) for k in (3, 5))
        self.spp = unit(96, 32, 1, activation=nn.SiLU)
        self.lateral = unit(32, 24, 1, activation=nn.SiLU)
        self.up = nn.Upsample(scale_factor=2)
        self.fuse = unit(48, 24, activation=nn.SiLU)
        outputs = self.anchors * self.numbers
        self.heads = nn.ModuleList([nn.Conv2d(24, outputs, 1), nn.Conv2d(32, outputs, 1)])

    def forward(self, x: Any) -> Any:
        corners = [x[..., i::2, j::2] for j in (0, 1) for i in (0, 1)]
        shallow = self.down1(self.stem(torch.cat(corners, 1)))
        deep = self.down2(shallow)
        deep = self.spp(torch.cat([deep, *(pool(deep) for pool in self.pools)], 1))
        shallow = self.fuse(torch.cat([self.up(self.lateral(deep)), shallow], 1))
        maps, boxes = [], []
        for head, features in zip(self.heads, (shallow, deep), strict=True):
            y = head(features)
            batch, _, height, width = y.shape
            y = y.view(batch, self.anchors, self.numbers, height, width)
            y = y.permute(0, 1, 3, 4, 2).contiguous()
            maps.append(y)
            boxes.append(torch.sigmoid(y).view(batch, -1, self.numbers))
        return (*maps, torch.cat(boxes, 1))


FAMILIES: Mapping[str, Callable[[], Any]] = {
    "MobileNetV2": mobilenet_v2,
    "MobileNetV3": mobilenet_v3,
    "EfficientNet-B0": efficientnet_b0,
    "VGG": VGG,
    "SqueezeNet": squeezenet,
    "DenseNet": densenet,
    "U-Net": UNet,
    "YOLO": Detector,
}


def network(name: str) -> Any:
    """One of `FAMILIES` with random weights, and the statistics that its own activations have."""
    torch.manual_seed(9)
    module = FAMILIES[name]()
    for norm in (m for m in module.modules() if isinstance(m, nn.BatchNorm2d)):
        nn.init.uniform_(norm.weight, 0.7, 1.3)
        nn.init.uniform_(norm.bias, -0.2, 0.4)
        norm.momentum = None  # the statistics of all that passes
    with torch.no_grad():
        module(torch.randn(8, 3, 64, 64))
    return module.eval()
