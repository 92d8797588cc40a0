# SPDX-License-Identifier: Apache-2.0
"""The networks of the QPP paper, each with the way in which the paper quantizes it (Table A.2)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from qppengine import photos
from qppengine.importers import from_torch
from qppengine.models import hrnet, resnet
from qppengine.models.espcn import ESPCN
from qppengine.models.hrnet import hrnet_w18
from qppengine.models.resnet import resnet18, resnet34
from qppengine.passes import keep_fp16

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from qppengine.graph import Graph
    from qppengine.ir import Array
    from qppengine.photos import Split

# Of red, green and blue in ImageNet, by which inputs of classifiers are normalized.
_MEAN = np.array([0.485, 0.456, 0.406], np.float32).reshape(1, 3, 1, 1)
_DEVIATION = np.array([0.229, 0.224, 0.225], np.float32).reshape(1, 3, 1, 1)


@dataclass(frozen=True)
class Network:
    """A network, the size of a usual input, and how the paper quantizes it."""

    make: Callable[[], Any]
    channels: int
    height: int
    width: int
    alpha: float  # the share of a value that its bounds hold
    positions: str = "first"  # of the predictors, as in `calibrate`
    quantized_ends: bool = False  # whether the first and the last layer are quantized, too

    def graph(self, module: Any, name: str | None = None) -> Graph:
        """The graph of a module that `make` has made, its ends in fp16 where the paper has them."""
        example = np.zeros((1, self.channels, self.height, self.width), np.float32)
        ends = not self.quantized_ends
        return keep_fp16(from_torch(module, example, name=name), skip_first=ends, skip_last=ends)

    def inputs(self, count: int, split: Split = "calibration", seed: int = 0) -> Iterator[Array]:
        """``count`` photographs with varied exposure, float32 ``[1, channels, height, width]``."""
        images = photos.rgb_samples(split, self.height, self.width, count, seed)
        if self.channels == 1:
            weights = np.array([0.299, 0.587, 0.114], np.float32)
            return (np.tensordot(image, weights, (1, 0))[:, None] for image in images)
        return map(self.normalize, images)

    @staticmethod
    def normalize(image: Array) -> Array:
        """Of a color image ``[N, 3, H, W]`` in [0, 1], by the statistics of ImageNet."""
        return (image - _MEAN) / _DEVIATION

    def untrained(self, seed: int = 0) -> Any:
        """A module in eval mode with random weights that passes signals on as a trained one does.

        Its batch normalizations have the statistics of photographs, and random scales and shifts.
        Those before an addition scale little, as training makes residual branches do (Goyal et al.,
        2017, start them at zero): with full scale every sum would add to the noise, in HRNet more
        than tenfold in all.
        """
        torch.manual_seed(seed)
        module = self.make()
        for layer in module.modules():
            if isinstance(layer, nn.BatchNorm2d):
                nn.init.uniform_(layer.weight, 0.5, 1.5)
                nn.init.normal_(layer.bias, 0, 0.2)
                layer.momentum = None  # the plain mean over all batches
        for layer in _before_additions(module):
            nn.init.uniform_(layer.weight, 0.1, 0.3)
        batch = torch.from_numpy(np.concatenate([*self.inputs(8, "train", seed)]))
        with torch.no_grad():
            module.train()(batch)
        return module.eval()


def _before_additions(module: Any) -> Iterator[Any]:
    """The batch normalizations at the end of residual branches and of HRNet's fusing layers."""
    for block in module.modules():
        if isinstance(block, hrnet.Bottleneck):
            yield block.bn3
        elif isinstance(block, (hrnet.BasicBlock, resnet.BasicBlock)):
            yield block.bn2
        elif isinstance(block, hrnet.HighResolutionModule):
            units = [unit for row in block.fuse_layers for unit in row if unit is not None]
            yield from (
                [m for m in u.modules() if isinstance(m, nn.BatchNorm2d)][-1] for u in units
            )


# The paper found these alphas for activations of 4 bits. With 8 bits clipping costs more than it
# gains: alpha = 1 is nearer to float.
NETWORKS = {
    "resnet18": Network(resnet18, 3, 224, 224, 0.9997),
    "resnet34": Network(resnet34, 3, 224, 224, 0.9997),
    # "auto" finds the four positions: the first ReLU, and the inputs of the new branches.
    "hrnet_w18_cityscapes": Network(partial(hrnet_w18, 19), 3, 256, 256, 0.9993, "auto"),
    "hrnet_w18_cofw": Network(partial(hrnet_w18, 29, "heatmaps"), 3, 256, 256, 0.9991, "auto"),
    "hrnet_w18_wflw": Network(partial(hrnet_w18, 98, "heatmaps"), 3, 256, 256, 0.9991, "auto"),
    "hrnet_w18_300w": Network(partial(hrnet_w18, 68, "heatmaps"), 3, 256, 256, 0.9993, "auto"),
    "espcn_x2": Network(partial(ESPCN, 2), 1, 256, 256, 0.9998, quantized_ends=True),
    "espcn_x3": Network(partial(ESPCN, 3), 1, 170, 170, 0.9998, quantized_ends=True),
}
