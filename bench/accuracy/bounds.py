# SPDX-License-Identifier: Apache-2.0
"""Compare the rules for bounds: constant, predicted and measured ones.

    python bench/accuracy/bounds.py [NAME...]

Prints the SQNR in dB against float32, mean and worst input, for test inputs of varied exposure and
for the same inputs made dark, low in contrast and noisy, unlike those of calibration. All rows have
int8 weights and residual additions that read int8. The networks are ESPCN, a narrow ResNet18
trained on digits, and a narrow HRNetV2 trained as in `trained_hrnet.py`. Takes 15 minutes on two
cores.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import click
import numpy as np
import qppengine as qe
import torch
import trained_hrnet
from qppengine import photos, reference
from qppengine.demo import import_espcn
from qppengine.metrics import sqnr
from qppengine.model_file import serialize
from qppengine.models.hrnet import HRNetV2
from qppengine.models.resnet import resnet18
from qppengine.models.zoo import NETWORKS
from sklearn.datasets import load_digits
from torch.nn import functional

if TYPE_CHECKING:
    from qppengine.ir import Array

BITS = (8, 6, 4)
HRNET = replace(
    NETWORKS["hrnet_w18_cityscapes"], make=partial(HRNetV2, 19, 4), height=128, width=128
)
# Rows: the margin of `fit`, and the options of the session.
ROWS: dict[str, tuple[Any, dict[str, Any]]] = {
    "static, mean": (0, {"scheme": "static", "static_bounds": "mean"}),
    "static, range": (0, {"scheme": "static", "static_bounds": "range"}),
    "static, fitted": (0, {"scheme": "static", "static_bounds": "fitted"}),
    "qpp, margin 0": (0, {"scheme": "qpp"}),
    "qpp, margin 2": (2, {"scheme": "qpp"}),
    "qpp, margin fitted": ("fitted", {"scheme": "qpp"}),
    "dynamic": (0, {"scheme": "dynamic"}),
}


class Case(NamedTuple):
    """A network with inputs, in [0, 1] of nominal white before ``normalize``."""

    graph: qe.Graph
    samples: list[Array]
    images: list[Array]  # of the test
    normalize: Any = staticmethod(lambda x: x)
    positions: str = "first"


def espcn() -> Case:
    """ESPCN, three times up, on luminance."""
    test = [pair.low[None, None] for pair in photos.pairs("test", 3, seed=1, exposures=3)]
    return Case(import_espcn(3), [*photos.calibration_samples(3, count=256)], test)


def digits() -> Case:
    """ResNet18 of 16 channels, trained for five epochs on digits of 32x32 pixels."""
    torch.manual_seed(0)
    data = load_digits()
    images = functional.interpolate(
        torch.from_numpy((data.images / 16).astype(np.float32))[:, None], size=32, mode="bilinear"
    ).repeat(1, 3, 1, 1)
    labels = torch.from_numpy(data.target)
    order = torch.randperm(len(images))
    module = resnet18(width=16, classes=10)
    optimizer = torch.optim.AdamW(module.parameters(), 2e-3)
    for _ in range(5):
        for batch in order[torch.randperm(1400)].split(50):
            optimizer.zero_grad()
            functional.cross_entropy(module(images[batch]), labels[batch]).backward()
            optimizer.step()
    graph = qe.from_torch(module.eval(), images[:1].numpy(), name="digits")
    rng = np.random.default_rng(6)
    varied = [photos.vary_exposure(images[i].numpy(), rng)[0][None] for i in order[1200:1464]]
    return Case(qe.keep_fp16(graph, skip_first=True, skip_last=True), varied[:200], varied[200:])


def hrnet() -> Case:
    """HRNetV2 of 4 to 32 channels on color photographs of 128x128 pixels."""
    module = trained_hrnet.train(HRNET.untrained(), 200, 4, HRNET, crop=64)
    images = [*photos.rgb_samples("test", 128, 128, 12, seed=3)]
    graph = HRNET.graph(module, "hrnet")
    return Case(graph, [*HRNET.inputs(256)], images, HRNET.normalize, HRNET.positions)


CASES = {"espcn": espcn, "digits": digits, "hrnet": hrnet}


def darken(image: Array, rng: np.random.Generator) -> Array:
    """A third of the light, half of the contrast, and noise."""
    dark = image * 0.35
    mean = dark.mean(axis=(2, 3), keepdims=True)
    noisy = (dark - mean) * 0.55 + mean + rng.normal(0, 0.03, image.shape)
    return np.asarray(np.maximum(noisy, 0), np.float32)


def measure(case: Case) -> None:
    """Prints the rows of a network."""
    rng = np.random.default_rng(5)
    sets = [case.images, [darken(image, rng) for image in case.images]]
    inputs = [[case.normalize(image) for image in images] for images in sets]
    expected = [[reference.run(case.graph, x)[0] for x in one] for one in inputs]
    calibration = qe.calibrate(
        case.graph, case.samples, 1.0, densities=(), positions=case.positions
    )
    for bits in BITS:
        files = {
            margin: serialize(case.graph, qe.fit(calibration, margin, bits=bits))
            for margin in (0, 2, "fitted")
        }
        for name, (margin, options) in ROWS.items():
            session = qe.Session(
                files[margin], activation_bits=bits, residual_dtype="int8", **options
            )
            cells = []
            for xs, ys in zip(inputs, expected, strict=True):
                errors = [
                    sqnr(session.run(x).reshape(y.shape), y) for x, y in zip(xs, ys, strict=True)
                ]
                cells.append(f"{np.mean(errors):7.1f} /{min(errors):5.1f}")
            click.echo(f"W8A{bits}  {name:20}{''.join(cells)}")


@click.command()
@click.argument("names", nargs=-1, type=click.Choice([*CASES]))
def main(names: tuple[str, ...]) -> None:
    """Print the tables of NAMES, or of all networks."""
    for name in names or CASES:
        click.echo(f"{name:26}  test          dark")
        measure(CASES[name]())


if __name__ == "__main__":
    main()
