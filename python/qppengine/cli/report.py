# SPDX-License-Identifier: Apache-2.0
"""Reports of commands: descriptions as plain data, printed as tables or as JSON."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from qppengine.graph import Graph
    from qppengine.quantization import Calibration


def describe_graph(graph: Graph) -> dict[str, Any]:
    """A network: inputs, outputs, nodes and their shapes."""
    return {
        "name": graph.name,
        "inputs": {value.name: text_of(value.shape) for value in graph.inputs},
        "outputs": list(graph.outputs),
        "parameters": sum(tensor.size for node in graph.nodes for tensor in node.tensors.values()),
        "nodes": [
            {
                "node": node.name,
                "op": node.op,
                "input": node.inputs[0],
                "shape": text_of(graph.shapes[node.output]),
                "activation": node.attributes.get("activation", ""),
            }
            for node in graph.nodes
        ],
    }


def describe_steps(steps: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of `Session.explain` or of a profile."""
    return [{**step, "shape": text_of(step["shape"] or ())} for step in steps]


def describe_calibration(output: Path, calibration: Calibration) -> dict[str, Any]:
    """A file written from statistics, and the static bounds of its values."""
    mean, extreme = calibration.mean_bounds, calibration.range_bounds
    return {
        "written": str(output),
        "bytes": output.stat().st_size,
        "samples": len(calibration.bounds),
        "alpha": calibration.plan.alpha,
        "densities": list(calibration.plan.densities),
        "values": [
            {
                "value": value,
                "mean_lo": finite(mean[row, 0]),
                "mean_hi": finite(mean[row, 1]),
                "lowest": finite(extreme[row, 0]),
                "highest": finite(extreme[row, 1]),
            }
            for row, value in enumerate(calibration.plan.values)
        ],
    }


def text_of(shape: Sequence[int | None]) -> str:
    """A shape such as "1x3x?x?"; "?" is any size."""
    return "x".join("?" if size is None else str(size) for size in shape)


def finite(number: Any, digits: int = 4) -> float | None:
    """A number for JSON: rounded, and None for infinity and NaN, which JSON lacks."""
    return round(float(number), digits) if math.isfinite(number) else None


def print_report(report: dict[str, Any], as_json: bool) -> None:
    """Prints a report: lists of rows as tables, or everything as JSON."""
    if as_json:
        click.echo(json.dumps(report, indent=2))
        return
    for key, value in report.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            click.echo(f"{key}:")
            _print_table(value)
        elif isinstance(value, dict):
            click.echo(f"{key}:")
            for name, item in value.items():
                click.echo(f"  {name}: {item}")
        elif isinstance(value, list):
            click.echo(f"{key}: {', '.join(map(str, value))}")
        else:
            click.echo(f"{key}: {value}")


def _print_table(rows: list[dict[str, Any]]) -> None:
    header = list(rows[0])
    cells = [header] + [
        ["" if row[key] is None else str(row[key]) for key in header] for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        padded = (text.ljust(width) for text, width in zip(line, widths, strict=True))
        click.echo("  " + "  ".join(padded).rstrip())
