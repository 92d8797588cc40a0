# SPDX-License-Identifier: Apache-2.0
"""ResNet18 and ResNet34 (He et al., CVPR 2016), in PyTorch.

Parameters are called as in torchvision, whose weights `load_state_dict` therefore takes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Sequence


class BasicBlock(nn.Module):  # type: ignore[misc]
    """Two 3x3 convolutions, with the input as residual, projected if the shape changes."""

    def __init__(self, inputs: int, channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = None
        if stride != 1 or inputs != channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``relu(residual(x) + x)``."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):  # type: ignore[misc]
    """An image ``[N, 3, H, W]`` to class scores ``[N, classes]``.

    Args:
        depths: Blocks of the four stages, each of which but the first halves the image.
        width: Channels of the first stage; each further one doubles them.
        classes: Number of scores.
    """

    def __init__(self, depths: Sequence[int], width: int = 64, classes: int = 1000) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        inputs = width
        for index, depth in enumerate(depths):
            channels = width * 2**index
            blocks = [
                BasicBlock(channels if block else inputs, channels, 1 if block or not index else 2)
                for block in range(depth)
            ]
            setattr(self, f"layer{index + 1}", nn.Sequential(*blocks))
            inputs = channels
        self._stages = len(depths)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(inputs, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The scores of ``x``."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for index in range(self._stages):
            x = getattr(self, f"layer{index + 1}")(x)
        return self.fc(torch.flatten(self.avgpool(x), 1))


def resnet18(width: int = 64, classes: int = 1000) -> ResNet:
    """18 layers: two blocks a stage."""
    return ResNet((2, 2, 2, 2), width, classes)


def resnet34(width: int = 64, classes: int = 1000) -> ResNet:
    """34 layers: three, four, six and three blocks."""
    return ResNet((3, 4, 6, 3), width, classes)
