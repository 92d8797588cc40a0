# SPDX-License-Identifier: Apache-2.0
"""HRNetV2 (Wang et al., TPAMI 2020), in PyTorch.

Parameters are called as in the authors' releases for segmentation and for facial landmarks, whose
weights `load_state_dict` therefore takes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Sequence


def _unit(inputs: int, channels: int, kernel: int = 3, stride: int = 1, *, relu: bool) -> Any:
    """A convolution and its batch normalization, maybe with ReLU."""
    layers: list[Any] = [
        nn.Conv2d(inputs, channels, kernel, stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(channels),
    ]
    return nn.Sequential(*layers, *([nn.ReLU(inplace=True)] if relu else []))


class BasicBlock(nn.Module):  # type: ignore[misc]
    """Two 3x3 convolutions, with the input as residual."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``relu(residual(x) + x)``."""
        y = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(y)) + x)


class Bottleneck(nn.Module):  # type: ignore[misc]
    """A 3x3 convolution between two 1x1 ones, with the input as residual."""

    expansion = 4

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__()
        outputs = channels * self.expansion
        self.conv1 = nn.Conv2d(inputs, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _unit(inputs, outputs, 1, relu=False) if inputs != outputs else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``relu(residual(x) + x)``."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


class HighResolutionModule(nn.Module):  # type: ignore[misc]
    """Blocks in parallel branches, each at half the resolution of the one before; then fusion.

    In the fusion every branch becomes the sum of all, brought to its resolution.
    """

    def __init__(self, channels: Sequence[int], blocks: int, align_corners: bool) -> None:
        super().__init__()
        self._align_corners = align_corners
        self.branches = nn.ModuleList(
            nn.Sequential(*(BasicBlock(width) for _ in range(blocks))) for width in channels
        )
        self.fuse_layers = nn.ModuleList(
            nn.ModuleList(self._fuse_layer(channels, target, source) for source in _range(channels))
            for target in _range(channels)
        )
        self.relu = nn.ReLU(inplace=True)

    @staticmethod
    def _fuse_layer(channels: Sequence[int], target: int, source: int) -> Any:
        if source == target:
            return None
        if source > target:
            return _unit(channels[source], channels[target], 1, relu=False)
        steps = target - source
        return nn.Sequential(
            *(
                _unit(
                    channels[source],
                    channels[target if step == steps - 1 else source],
                    stride=2,
                    relu=step != steps - 1,
                )
                for step in range(steps)
            )
        )

    def forward(self, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
        """The fused branches."""
        x = [branch(value) for branch, value in zip(self.branches, inputs, strict=True)]
        outputs = []
        for target, layers in enumerate(self.fuse_layers):
            total = None
            for source, layer in enumerate(layers):
                term = x[source] if layer is None else layer(x[source])
                if source > target:
                    term = _enlarge(term, 2 ** (source - target), self._align_corners)
                total = term if total is None else total + term
            outputs.append(self.relu(total))
        return outputs


class HRNetV2(nn.Module):  # type: ignore[misc]
    """An image ``[N, 3, H, W]`` to maps ``[N, outputs, H / 4, W / 4]``; H and W divisible by 32.

    Args:
        outputs: Number of maps, such as classes or landmarks.
        width: Channels of the first branch; each further one has twice as many. 18 is W18.
        head: "segmentation" (19 classes of Cityscapes in the paper), which enlarges branches with
            aligned corners, or "heatmaps", which does not.
        modules: Modules of stages 2, 3 and 4.
        blocks: Blocks of a branch of a module.
    """

    def __init__(
        self,
        outputs: int = 19,
        width: int = 18,
        head: str = "segmentation",
        modules: Sequence[int] = (1, 4, 3),
        blocks: int = 4,
    ) -> None:
        super().__init__()
        self._align_corners = {"segmentation": True, "heatmaps": False}[head]
        stem = 64
        self.conv1 = nn.Conv2d(3, stem, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        self.conv2 = nn.Conv2d(stem, stem, 3, stride=2, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(stem)
        self.relu = nn.ReLU(inplace=True)
        wide = stem * Bottleneck.expansion
        self.layer1 = nn.Sequential(
            Bottleneck(stem, stem), *(Bottleneck(wide, stem) for _ in range(blocks - 1))
        )
        before = [wide]
        for index, count in enumerate(modules):
            channels = [width * 2**branch for branch in range(index + 2)]
            setattr(self, f"transition{index + 1}", _transition(before, channels))
            stage = (
                HighResolutionModule(channels, blocks, self._align_corners) for _ in range(count)
            )
            setattr(self, f"stage{index + 2}", nn.Sequential(*stage))
            before = channels
        self._stages = len(modules)
        total = sum(before)
        layers = nn.Sequential(
            nn.Conv2d(total, total, 1),
            nn.BatchNorm2d(total),
            nn.ReLU(inplace=True),
            nn.Conv2d(total, outputs, 1),
        )
        self._head = "last_layer" if head == "segmentation" else "head"
        setattr(self, self._head, layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The maps of ``x``."""
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        branches = [self.layer1(x)]
        for index in range(1, self._stages + 1):
            layers = getattr(self, f"transition{index}")
            branches = [
                branches[min(branch, len(branches) - 1)]
                if layer is None
                else layer(branches[min(branch, len(branches) - 1)])
                for branch, layer in enumerate(layers)
            ]
            branches = getattr(self, f"stage{index + 1}")(branches)
        first, *others = branches
        enlarged = [_enlarge(y, 2**i, self._align_corners) for i, y in enumerate(others, 1)]
        return getattr(self, self._head)(torch.cat([first, *enlarged], 1))


def _transition(before: Sequence[int], channels: Sequence[int]) -> Any:
    """Brings branches to their channels; the new one comes from the last, at half its size."""
    layers: list[Any] = []
    for branch, width in enumerate(channels):
        if branch >= len(before):
            layers.append(nn.Sequential(_unit(before[-1], width, stride=2, relu=True)))
        elif before[branch] == width:
            layers.append(None)
        else:
            layers.append(_unit(before[branch], width, relu=True))
    return nn.ModuleList(layers)


def _enlarge(x: torch.Tensor, scale: int, align_corners: bool) -> torch.Tensor:
    return functional.interpolate(
        x, scale_factor=scale, mode="bilinear", align_corners=align_corners
    )


def _range(channels: Sequence[int]) -> range:
    return range(len(channels))


def hrnet_w18(outputs: int = 19, head: str = "segmentation") -> HRNetV2:
    """HRNetV2-W18."""
    return HRNetV2(outputs, 18, head)
