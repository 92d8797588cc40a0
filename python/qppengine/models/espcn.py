# SPDX-License-Identifier: Apache-2.0
"""ESPCN, the sub-pixel super-resolution network (Shi et al., CVPR 2016), in PyTorch."""

from __future__ import annotations

import torch
from torch import nn


class ESPCN(nn.Module):  # type: ignore[misc]
    """Luminance ``[N, 1, H, W]`` in [0, 1] to ``[N, 1, H * upscale, W * upscale]``.

    All three convolutions work at the low resolution; the last gives ``upscale ** 2`` channels,
    which the pixel shuffle lays out as the high-res image. Zero padding keeps the size.
    """

    def __init__(self, upscale: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 64, kernel_size=5, padding=2)
        self.tanh1 = nn.Tanh()
        self.conv2 = nn.Conv2d(64, 32, kernel_size=3, padding=1)
        self.tanh2 = nn.Tanh()
        self.conv3 = nn.Conv2d(32, upscale**2, kernel_size=3, padding=1)
        self.shuffle = nn.PixelShuffle(upscale)
        # Glorot's weights, made for tanh, keep it in its linear part, where the range of every
        # activation follows the range of the image.
        for conv in (self.conv1, self.conv2, self.conv3):
            nn.init.xavier_uniform_(conv.weight)
            nn.init.zeros_(conv.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The high-res image of ``x``."""
        x = self.tanh1(self.conv1(x))
        x = self.tanh2(self.conv2(x))
        return self.shuffle(self.conv3(x))
