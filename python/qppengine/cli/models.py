# SPDX-License-Identifier: Apache-2.0
"""The commands that write model files: import, calibrate, fit."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from qppengine.calibrate import DENSITIES, calibrate
from qppengine.cli.files import IMPORTERS, load_batches, load_network
from qppengine.cli.group import main
from qppengine.cli.options import (
    FILE,
    TARGET,
    bits_option,
    feature_option,
    json_option,
    margin_option,
    with_fp16_options,
)
from qppengine.cli.report import describe_calibration, describe_graph, print_report
from qppengine.importers import from_torch
from qppengine.passes import keep_fp16
from qppengine.quantization import DEFAULT_FEATURES, Calibration
from qppengine.regression import fit
from qppengine.save import save
from qppengine.weights import METHODS, quantize_weights

if TYPE_CHECKING:
    from qppengine.quantization import Feature


@main.command(name="import")
@click.argument("model", type=FILE)
@click.option("-o", "--output", type=TARGET, required=True, help="The .qpp file to write.")
@json_option
def import_(model: Path, output: Path, as_json: bool) -> None:
    """Convert a .pt2 or .onnx file to a .qpp file without calibration.

    MODEL is a file of torch.export.save, or an ONNX model of floating-point numbers. The output
    runs in scheme fp16 only; use `calibrate` for a file that runs in all schemes.
    """
    graph = IMPORTERS.get(model.suffix, from_torch)(model)
    save(output, graph)
    print_report(
        {"written": str(output), "bytes": output.stat().st_size, **describe_graph(graph)}, as_json
    )


@main.command(name="calibrate")
@click.argument("model", type=FILE)
@click.argument("samples", type=click.Path(exists=True, path_type=Path))
@click.option("-o", "--output", type=TARGET, required=True, help="The .qpp or .npz file to write.")
@click.option(
    "--alpha", type=float, default=0.9997, show_default=True, help="Bounds are the alpha-quantiles."
)
@click.option(
    "--density",
    "densities",
    type=float,
    multiple=True,
    default=DENSITIES,
    show_default=True,
    help="A density of dense + sparse execution; can be repeated.",
)
@click.option(
    "--position",
    "positions",
    multiple=True,
    default=["first"],
    show_default=True,
    help="A value to predict from, can be repeated; or 'first', or 'auto'.",
)
@click.option(
    "--weights",
    type=click.Choice(METHODS),
    default="round",
    show_default=True,
    help="How the weights of int8 layers are rounded; all but 'round' read the samples twice.",
)
@feature_option
@margin_option
@bits_option
@with_fp16_options
@json_option
def calibrate_(
    model: Path,
    samples: Path,
    output: Path,
    alpha: float,
    densities: tuple[float, ...],
    positions: tuple[str, ...],
    weights: str,
    features: tuple[Feature, ...],
    margin: float | Literal["fitted"],
    bits: int,
    as_json: bool,
    **fp16: Any,
) -> None:
    """Calibrate a network and write a file that runs in every scheme.

    MODEL is a .pt2, .onnx or .qpp file. SAMPLES is a .npy file, float32 [N, C, H, W], or a folder
    of them; every image is a sample. An output named *.npz receives only the statistics, for `fit`.
    """
    progress = sys.stderr.isatty()
    graph = keep_fp16(load_network(model), **fp16)
    if weights != "round":  # which keeps weights that a .qpp file has rounded already
        graph = quantize_weights(graph, load_batches(samples), weights, progress=progress)
    calibration = calibrate(
        graph,
        load_batches(samples),
        alpha,
        densities=densities,
        positions=positions[0] if positions in (("first",), ("auto",)) else positions,
        features=features or DEFAULT_FEATURES,
        progress=progress,
    )
    if output.suffix == ".npz":
        calibration.save(output)
    else:
        save(output, graph, fit(calibration, margin, bits=bits))
    print_report(describe_calibration(output, calibration), as_json)


@main.command(name="fit")
@click.argument("model", type=FILE)
@click.argument("statistics", type=FILE)
@click.option("-o", "--output", type=TARGET, required=True, help="The .qpp file to write.")
@margin_option
@bits_option
@with_fp16_options
@json_option
def fit_(
    model: Path,
    statistics: Path,
    output: Path,
    margin: float | Literal["fitted"],
    bits: int,
    as_json: bool,
    **fp16: Any,
) -> None:
    """Fit the predictors of a model to statistics.

    MODEL is a .pt2, .onnx or .qpp file, STATISTICS an .npz file of `calibrate` for this model with
    the same layers in fp16.
    """
    calibration = Calibration.load(statistics)
    graph = keep_fp16(load_network(model), **fp16)
    save(output, graph, fit(calibration, margin, bits=bits))
    print_report(describe_calibration(output, calibration), as_json)
