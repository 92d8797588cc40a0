# SPDX-License-Identifier: Apache-2.0
"""Train ESPCN on the photographs of ``qppengine.photos`` and export it as a ``.pt2`` file.

``python -m qppengine.models.train_espcn --upscale 3`` writes ``espcn_x3.pt2`` next to this file.
It trains on the training photographs only and keeps the last weights. It prints the PSNR of the
held-out photographs for information.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np
import torch

from qppengine import photos
from qppengine.models.espcn import ESPCN
from qppengine.paths import write_file

if TYPE_CHECKING:
    from numpy.typing import NDArray

LEARNING_RATE = 2e-3  # decays to 0 along a cosine
BIAS_DECAY = 1.0  # small biases let every activation, like its bounds, follow the exposure
BATCH = 12
PATCH = 48  # low-res pixels; large, because the zero padding of a patch's border is learnt too
STEPS_PER_EXPOSURE = 50
MIN_SHRINK = 0.5  # photographs are shrunk at random: finer detail than their own resolution holds


class Patches:
    """An endless supply of random (low-res, high-res) batches from the training photographs."""

    def __init__(self, upscale: int, seed: int) -> None:
        self._upscale = upscale
        self._rng = np.random.default_rng(seed)
        self._photos = [photos.load_luminance(name) for name in photos.names("train")]
        self._images: list[tuple[photos.Luma, photos.Luma, float]] = []

    def expose(self) -> None:
        """Gives every photograph a new size and a new exposure."""
        self._images = []
        for photo in self._photos:
            shrink = self._rng.uniform(MIN_SHRINK, 1.0)
            height, width = (round(extent * shrink) for extent in photo.shape)
            high, gain = photos.vary_exposure(photos.resize(photo, height, width), self._rng)
            high = photos.crop_to_multiple(high, self._upscale)
            self._images.append((photos.downscale(high, self._upscale), high, gain))

    def batch(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Float32 ``[BATCH, 1, PATCH, PATCH]``, the ground truth, and gains ``[BATCH, 1, 1, 1]``.

        Patches are flipped and rotated at random.
        """
        r, rng = self._upscale, self._rng
        lows: list[photos.Luma] = []
        highs: list[photos.Luma] = []
        gains: list[float] = []
        for _ in range(BATCH):
            low, high, gain = self._images[rng.integers(len(self._images))]
            y, x = (int(rng.integers(0, extent - PATCH + 1)) for extent in low.shape)
            low = low[y : y + PATCH, x : x + PATCH]
            high = high[y * r : (y + PATCH) * r, x * r : (x + PATCH) * r]
            turns, mirrored = int(rng.integers(4)), bool(rng.integers(2))
            for image, images in ((low, lows), (high, highs)):
                image = np.rot90(image, turns)
                images.append(image.T if mirrored else image)
            gains.append(gain)
        return (
            torch.from_numpy(np.stack(lows)[:, None]),
            torch.from_numpy(np.stack(highs)[:, None]),
            torch.tensor(gains)[:, None, None, None],
        )


def train(upscale: int, steps: int, seed: int) -> ESPCN:
    """ESPCN after ``steps`` batches of AdamW; reproducible by ``seed``.

    The loss is the squared error divided by the squared gain, so that every exposure counts alike.
    """
    torch.manual_seed(seed)
    model: ESPCN = ESPCN(upscale).to(memory_format=torch.channels_last)
    convs = (model.conv1, model.conv2, model.conv3)
    optimizer = torch.optim.AdamW(
        [
            {"params": [conv.weight for conv in convs], "weight_decay": 0.0},
            {"params": [conv.bias for conv in convs], "weight_decay": BIAS_DECAY},
        ],
        lr=LEARNING_RATE,
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    patches = Patches(upscale, seed)
    with click.progressbar(range(steps), label=f"ESPCN x{upscale}") as progress:
        for step in progress:
            if step % STEPS_PER_EXPOSURE == 0:
                patches.expose()
            low, high, gain = patches.batch()
            optimizer.zero_grad()
            ((model(low) - high) / gain).square().mean().backward()
            optimizer.step()
            schedule.step()
    model.to(memory_format=torch.contiguous_format)
    return model


def export(model: ESPCN, path: Path) -> None:
    """Writes ``model`` as un-decomposed ATen, for one image of any height and width."""
    height, width = torch.export.Dim("height"), torch.export.Dim("width")
    example = torch.zeros(1, 1, 32, 48)
    program = torch.export.export(
        model, (example,), dynamic_shapes={"x": {2: height, 3: width}}, strict=False
    )
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # holds the paths of this machine
    program.example_inputs = None  # would be pickled into the archive
    data = io.BytesIO()
    torch.export.save(program, data)
    write_file(path, data.getvalue())


def psnr(image: NDArray[np.float32], truth: NDArray[np.float32]) -> float:
    """Peak signal-to-noise ratio in dB for a peak of 1."""
    return float(-10 * np.log10(np.mean(np.square(image - truth, dtype=np.float64))))


def report(model: ESPCN, upscale: int) -> None:
    """Prints the PSNR of the calibration and test photographs at their own exposure."""
    for split in ("calibration", "test"):
        for pair in photos.pairs(split, upscale, seed=None):
            with torch.no_grad():
                output = model(torch.from_numpy(pair.low)[None, None])[0, 0].clamp(0, 1).numpy()
            bicubic = photos.upscale_bicubic(pair.low, upscale)
            click.echo(
                f"{split:12} {pair.name:8} ESPCN {psnr(output, pair.high):5.2f} dB"
                f"  bicubic {psnr(bicubic, pair.high):5.2f} dB"
            )


@click.command()
@click.option("--upscale", type=click.IntRange(2, 3), default=3, show_default=True)
@click.option("--steps", type=click.IntRange(min=1), default=8000, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option(
    "--output",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="[default: espcn_x<upscale>.pt2 next to this script]",
)
def main(upscale: int, steps: int, seed: int, output: Path | None) -> None:
    """Train ESPCN for luminance super-resolution and export it as a .pt2 file."""
    torch.set_num_threads(1)  # the sums, and so the weights, then do not depend on the machine
    model = train(upscale, steps, seed)
    path = output or Path(__file__).with_name(f"espcn_x{upscale}.pt2")
    export(model.eval(), path)
    report(model, upscale)
    click.echo(f"wrote {path} ({path.stat().st_size} bytes)")


if __name__ == "__main__":
    main()
