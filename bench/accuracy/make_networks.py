# SPDX-License-Identifier: Apache-2.0
"""Write the networks of the paper as model files, calibrated on photographs.

    python bench/accuracy/make_networks.py build/models [NAME...]

Weights are random, since trained ones do not come with the package; sizes, shapes and the
statistics of the activations are those of the real networks. Without names all are written.
"--alpha 1" is best for activations of 8 bits.
"""

from __future__ import annotations

from pathlib import Path

import click
import qppengine as qe
from qppengine.models.zoo import NETWORKS


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.argument("names", nargs=-1, type=click.Choice(sorted(NETWORKS)))
@click.option("--samples", default=32, show_default=True, help="Photographs to calibrate on.")
@click.option("--alpha", type=float, help="Of the bounds; by default that of the paper (4 bits).")
def main(folder: Path, names: tuple[str, ...], samples: int, alpha: float | None) -> None:
    """Write NAMES, or all networks, into FOLDER."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names or NETWORKS:
        network = NETWORKS[name]
        graph = network.graph(network.untrained(), name)
        images = network.inputs(samples)
        calibration = qe.calibrate(
            graph, images, alpha or network.alpha, positions=network.positions
        )
        path = folder / f"{name}.qpp"
        qe.save(path, graph, calibration)
        click.echo(f"{path}: {path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
