# SPDX-License-Identifier: Apache-2.0
"""The commands that need no model: doctor, demo."""

from __future__ import annotations

import importlib.util
import platform
import sys
from pathlib import Path

import click
import numpy as np

from qppengine.cli.group import EXTRAS, main
from qppengine.cli.options import json_option
from qppengine.cli.report import print_report
from qppengine.session import __version__, cores, cpu_features, kernels


@main.command()
@json_option
def doctor(as_json: bool) -> None:
    """Show versions, CPU features, kernels and optional packages."""
    print_report(
        {
            "qppengine": __version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
            "machine": platform.machine(),
            "cores": cores(),
            "cpu_features": cpu_features(),
            "packages": {
                name: "installed" if importlib.util.find_spec(name) else f"missing, extra {extra!r}"
                for name, extra in EXTRAS.items()
            },
            "kernels": kernels(),
        },
        as_json,
    )


@main.command()
@click.option(
    "-o",
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(),
    show_default=True,
    help="Folder for the model and the picture.",
)
@click.option(
    "--upscale",
    type=click.IntRange(2, 3),
    default=3,
    show_default=True,
    help="Factor of enlargement.",
)
@json_option
def demo(output: Path, upscale: int, as_json: bool) -> None:
    """Super-resolution of photographs in every scheme: a table and a picture.

    Exits with an error if the table contradicts the expected order of the schemes.
    """
    from qppengine.demo import check
    from qppengine.demo import main as run_demo

    report = run_demo(output, upscale, progress=sys.stderr.isatty())
    print_report(report, as_json)
    check(report)
