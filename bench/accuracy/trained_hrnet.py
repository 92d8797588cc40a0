# SPDX-License-Identifier: Apache-2.0
"""Measure the accuracy of HRNetV2-W18 at 8 bits, with random weights and after short training.

    python bench/accuracy/trained_hrnet.py

Trains the network to predict the nearest of 19 colors, found by k-means, for every pixel of the
training photographs at a quarter of their size: a task without labels that still makes filters
follow their inputs. Prints the SQNR in dB of each scheme against float32, mean over test
photographs of 256x256 pixels, before and after. Takes a quarter of an hour on two cores.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
import numpy as np
import qppengine as qe
import torch
from qppengine.metrics import sqnr
from qppengine.model_file import serialize
from qppengine.models.zoo import NETWORKS, Network
from sklearn.cluster import KMeans
from torch.nn import functional
from tqdm import tqdm

if TYPE_CHECKING:
    from collections.abc import Iterator

CLASSES = 19
CROP = 128
SAMPLES = 128  # of calibration
RUNS: dict[str, dict[str, Any]] = {
    "fp16": {"scheme": "fp16"},
    "static, mean": {"scheme": "static", "static_bounds": "mean"},
    "static, range": {"scheme": "static", "static_bounds": "range"},
    "qpp, margin 0": {"scheme": "qpp"},
    "qpp, margin 2": {"scheme": "qpp"},
    "dynamic": {"scheme": "dynamic"},
    "dynamic, density 0.01": {"scheme": "dynamic", "density": 0.01},
}
NETWORK = NETWORKS["hrnet_w18_cityscapes"]


def crops(
    steps: int, batch: int, network: Network = NETWORK, crop: int = CROP
) -> Iterator[torch.Tensor]:
    """Batches of training photographs at the scale at which the network is used."""
    rng = np.random.default_rng(0)
    images = network.inputs(steps * batch, "train", seed=1)
    for _ in range(steps):
        parts = []
        for _ in range(batch):
            image = next(images)
            top, left = rng.integers(0, network.height - crop + 1, 2)
            parts.append(image[:, :, top : top + crop, left : left + crop])
        yield torch.from_numpy(np.concatenate(parts))


def colors_of(images: torch.Tensor) -> torch.Tensor:
    """The colors that the network's maps see, ``[N, H / 4 * W / 4, 3]``."""
    return functional.avg_pool2d(images, 4).flatten(2).transpose(1, 2)


def train(module: Any, steps: int, batch: int, network: Network = NETWORK, crop: int = CROP) -> Any:
    """Trains a module in place and returns it in eval mode."""
    sample = torch.cat([*crops(16, 1, network, crop)])
    found = KMeans(CLASSES, n_init=1, random_state=0).fit(colors_of(sample).reshape(-1, 3).numpy())
    centers = torch.from_numpy(found.cluster_centers_.astype(np.float32))
    optimizer = torch.optim.Adam(module.parameters(), 1e-3)
    for layer in module.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = 0.1
    module.train()
    progress = tqdm(crops(steps, batch, network, crop), total=steps, desc="training")
    for images in progress:
        classes = torch.cdist(colors_of(images), centers[None]).argmin(2)
        loss = functional.cross_entropy(module(images).flatten(2), classes)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        progress.set_postfix(loss=f"{float(loss.detach()):.3f}")
    return module.eval()


def measure(module: Any) -> dict[str, float]:
    """The SQNR of every run, mean over the test photographs."""
    graph = NETWORK.graph(module, "hrnet_w18")
    calibration = qe.calibrate(graph, NETWORK.inputs(SAMPLES), 1.0, positions=NETWORK.positions)
    plain, wide = (serialize(graph, qe.fit(calibration, margin=margin)) for margin in (0, 2))
    images = list(NETWORK.inputs(4, "test", seed=3))
    with torch.no_grad():
        expected = [module(torch.from_numpy(image)).numpy() for image in images]
    result = {}
    for name, options in RUNS.items():
        session = qe.Session(wide if "margin 2" in name else plain, **options)
        found = [session.run(image).reshape(expected[0].shape) for image in images]
        result[name] = float(np.mean([sqnr(y, e) for y, e in zip(found, expected, strict=True)]))
    return result


@click.command()
@click.option("--steps", default=240, show_default=True, help="Of training.")
@click.option("--batch", default=4, show_default=True, help="Crops of a step.")
def main(steps: int, batch: int) -> None:
    """Print the table."""
    module = NETWORK.untrained()
    before = measure(module)
    after = measure(train(module, steps, batch))
    print(f"{'dB':24}{'random':>8}{'trained':>9}")
    for name, value in before.items():
        print(f"{name:24}{value:8.1f}{after[name]:9.1f}")


if __name__ == "__main__":
    main()
