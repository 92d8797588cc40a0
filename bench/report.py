# SPDX-License-Identifier: Apache-2.0
"""Run ``qpp_bench`` on lists of shapes and write what each costs.

    python bench/report.py build/host/qpp_bench bench/shapes/*.txt -o costs.csv

Times are wall-clock medians of the machine it runs on. For other quantities, such as cycles, name
an instrument: a command that runs the program it is given and prints one JSON object on standard
output. ``--key`` says where the number stands in it; the cost of one run is the difference between
five runs and one, divided by four.

    python bench/report.py --instrument "my-counter --json" --key whole.cycles --unit cycles ...

An emulator's elapsed time says nothing, so without an instrument it is refused.
"""

from __future__ import annotations

import csv
import json
import platform
import shlex
import subprocess
from pathlib import Path
from typing import Any

import click
from tqdm import tqdm

Row = dict[str, str | float]

WARM_RUNS, RUNS = 1, 5


def run(command: list[str]) -> dict[str, Any]:
    """The JSON object that a command prints."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise click.ClickException(f"{shlex.join(command)}: {done.stderr.strip()}")
    try:
        result = json.loads(done.stdout)
    except json.JSONDecodeError as error:
        raise click.ClickException(
            f"{shlex.join(command)}: expected one JSON object on standard output: {error}"
        ) from error
    if not isinstance(result, dict):
        raise click.ClickException(f"{shlex.join(command)}: expected a JSON object")
    return result


def instrument_cost(instrument: list[str], program: list[str], key: str) -> float:
    """Cost of one run, by the instrument."""
    costs = []
    for runs in (WARM_RUNS, RUNS):
        value: Any = run([*instrument, *program, "--iters", str(runs)])
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if not isinstance(value, (int, float)):
            raise click.ClickException(f"--key {key}: the instrument's JSON has no such number")
        costs.append(float(value))
    return (costs[1] - costs[0]) / (RUNS - WARM_RUNS)


def measure(
    bench: str, arguments: list[str], launcher: list[str], instrument: list[str], key: str
) -> Row:
    """One row: what ``qpp_bench`` says of the work, and what the work costs."""
    program = [bench, *arguments]
    report = run([*launcher, *program, "--iters", "20" if not instrument else "1", "--json"])
    if instrument:
        cost = instrument_cost(instrument, program, key)
    elif report["ms_median"] is None:
        raise click.ClickException(
            "this machine is emulated, so elapsed time says nothing; name an --instrument"
        )
    else:
        cost = float(report["ms_median"])
    work = float(report.get("macs") or report.get("elements") or 0)
    return {
        "work": shlex.join(arguments),
        "kernel": report.get("kernel", ""),
        "cost": cost,
        "macs_or_elements": work,
        "per_unit": work / cost if cost else 0.0,
        "compiler": report["compiler"],
    }


def shapes(path: Path) -> list[list[str]]:
    """The arguments on each line of a file, without comments."""
    lines = (line.split("#")[0].strip() for line in path.read_text().splitlines())
    return [shlex.split(line) for line in lines if line]


def describe_machine() -> dict[str, str]:
    """Machine and commit, for every row."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parent,
    )
    return {"machine": platform.machine(), "commit": commit.stdout.strip() or "unknown"}


def markdown(rows: list[Row], unit: str) -> str:
    """A table for a README."""
    lines = [f"| work | kernel | {unit} | MACs or elements per {unit[:-1]} |", "|---|---|---|---|"]
    for row in rows:
        cost = float(row["cost"])
        shown = f"{cost / 1e6:.3f} M" if cost >= 1e5 else f"{cost:.4g}"
        lines.append(
            f"| `{row['work']}` | {row['kernel']} | {shown} | {float(row['per_unit']):.2f} |"
        )
    return "\n".join(lines)


@click.command()
@click.argument("bench", type=click.Path(exists=True, dir_okay=False))
@click.argument(
    "lists", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@click.option("--output", "-o", type=click.Path(dir_okay=False, writable=True, path_type=Path))
@click.option("--launcher", default="", help="Command in front of BENCH, such as an emulator.")
@click.option("--instrument", default="", help="Command that measures the program it is given.")
@click.option("--key", default="cycles", show_default=True, help="Dotted path in its JSON.")
@click.option("--unit", default="ms", show_default=True, help="What the numbers are.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a Markdown table.")
def main(
    bench: str,
    lists: tuple[Path, ...],
    output: Path | None,
    launcher: str,
    instrument: str,
    key: str,
    unit: str,
    as_json: bool,
) -> None:
    """Measure every shape of LISTS with the qpp_bench at BENCH."""
    work = [arguments for path in lists for arguments in shapes(path)]
    about = describe_machine()
    rows: list[Row] = []
    for arguments in tqdm(work, "shapes"):
        row = measure(bench, arguments, shlex.split(launcher), shlex.split(instrument), key)
        rows.append({**row, "unit": unit, **about})
    if output:
        with output.open("w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    click.echo(json.dumps(rows, indent=1) if as_json else markdown(rows, unit))


if __name__ == "__main__":
    main()
