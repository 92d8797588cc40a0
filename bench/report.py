# SPDX-License-Identifier: Apache-2.0
"""Run ``qpp_bench`` on lists of shapes and compare the cost of each with its roofline.

    python bench/report.py build/host/qpp_bench bench/shapes/*.txt -o costs.csv

Times are wall-clock medians of the machine it runs on. For other quantities, such as cycles, name
an instrument: a command that runs the program it is given and prints one JSON object on standard
output. ``--key`` is the path of the number in it; the cost of one run is the difference between
three runs and one, halved.

    python bench/report.py --instrument "my-counter --json" --key whole.cycles --unit cycles ...

``--only`` measures the works that match a pattern, and those that the file of ``--output`` lacks;
its other rows keep their costs, each with the commit and the date of its measurement:

    python bench/report.py build/host/qpp_bench bench/shapes/*.txt -o costs.csv --only resize

``--no-measure`` measures nothing: it computes rooflines and tables from the costs in ``--output``.
Timing is not available under emulation, so that an emulator needs an instrument. ``--update``
writes the tables into documents, between the lines ``<!-- bench NAME -->`` (of the list) and
``<!-- bench end -->``.

The roofline of a Cortex-A76 is the largest of

* multiply-accumulates, at 32 (int8) or 16 (fp16) a cycle. Winograd's F(4x4, 3x3) needs 36 products
  for the 144 of a direct convolution, in fp16 whatever the type of its source is;
* instructions of elementwise work, as `SLOTS` counts them: two vector pipes, two loads and one
  store of 16 bytes a cycle;
* bytes that must be read or written once, without padding, if a cache cannot hold them:
  those beyond 512 KiB (second level) at 12.8 a cycle, those beyond 4 MiB (third level) at 4.6,
  which is 12 GB/s at 2.6 GHz. All bytes of a linear layer come from memory.
"""

from __future__ import annotations

import csv
import json
import platform
import shlex
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from tqdm import tqdm

if TYPE_CHECKING:
    from collections.abc import Mapping

Row = dict[str, str | float]

WARM_RUNS, RUNS = 1, 3

# ------------------------------------------------------------------------------------ the roofline

MACS = {"int8": 32, "ds": 32, "fp16": 16}  # a cycle; for dense + sparse, of the dense part
WINOGRAD_PRODUCTS = 36 / 144  # of F(4x4, 3x3), relative to those of a direct convolution
CACHES = ((4 << 20, 4.6), (512 << 10, 12.8))  # bytes that fit, bytes a cycle of the next level

# Cycles of the busier vector pipe for one element (of the output; of the input where a pool or a
# statistic reduces it), by command and type. The kernels' boxes list the instructions.
SLOTS = {
    ("add", "int8"): 8 / 16,
    ("add", "fp16"): 5 / 16,
    ("concat", "int8"): 9 / 32,
    ("pixel_shuffle", "fp16"): 2 / 4,  # a conversion to float
    ("max_pool", "int8"): 7 / 32,
    ("max_pool", "fp16"): 7 / 16,
    ("avg_pool", "int8"): 29 / 16,
    ("global_avg_pool", "int8"): 1 / 16,
    ("quantize", "fp16"): 9 / 32,
    ("minmax", "fp16"): 4 / 32,
    ("quantile", "fp16"): 77 / 512,
}


def depthwise_slots(dtype: str, size: int, stride: int) -> int:
    """Instructions on vector pipes for 4 pixels of 8 channels."""
    if dtype == "fp16":
        return 4 * (size**2 + 3)  # FMLA; FMAX, FMIN, store
    # Rows are interleaved by fours for SDOT, in each column that the pixels see.
    quads, rest = divmod(size, 4)
    zips = 4 * quads + {0: 0, 1: 3}.get(rest, 4)
    dots = 2 * (quads + (rest > 0)) * size
    return (3 * stride + size) * zips + 4 * (dots + 13)  # 13 for the output stage


def roofline(arguments: list[str], report: Mapping[str, Any]) -> float:
    """Least cycles of a Cortex-A76 for the work and the algorithm of its kernel; 0 if unknown."""
    command = arguments[0]
    options = dict(zip(arguments[1::2], arguments[2::2], strict=True))
    dtype = options.get("--dtype", "fp16")

    def number(name: str) -> float:
        return float(report.get(name) or 0)

    bytes_moved = number("bytes")
    slots = SLOTS.get((command, dtype), 0)
    elements = number("elements")
    if command == "depthwise":  # which counts multiply-accumulates
        size = int(options.get("--kernel", 3))
        elements = number("macs") / size**2
        slots = depthwise_slots(dtype, size, int(options.get("--stride", 1))) / 64
    if command == "resize":  # int8 interleaves four corners, fp16 interpolates columns, once
        scale = int(options.get("--scale", 2))
        slots = (8 + 12 / scale**2 if dtype == "int8" else 6 + 10 / scale) / 32
    products = number("macs")
    if str(report.get("kernel", "")).startswith("winograd4"):
        products, dtype = products * WINOGRAD_PRODUCTS, "fp16"
    bounds = [products / MACS[dtype], elements * slots]
    bounds += [
        (bytes_moved if command == "linear" else bytes_moved - size) / rate for size, rate in CACHES
    ]
    return max(bounds)


# -------------------------------------------------------------------------------------- measuring


@dataclass(frozen=True)
class Work:
    """A line of a list: arguments of ``qpp_bench``, and how often a network needs that work."""

    network: str
    count: int
    arguments: list[str]

    @property
    def text(self) -> str:
        """The arguments as typed in a shell."""
        return shlex.join(self.arguments)

    @property
    def place(self) -> tuple[str, str]:
        """The key of its row."""
        return self.network, self.text


def read_list(path: Path) -> list[Work]:
    """The lines of a file: ``[how often] arguments  # comment``."""
    works = []
    for line in path.read_text().splitlines():
        words = shlex.split(line.split("#")[0])
        if words:
            counted = words[0].isdigit()
            works.append(Work(path.stem, int(words[0]) if counted else 1, words[counted:]))
    return works


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


@dataclass(frozen=True)
class Meter:
    """How costs are measured."""

    launcher: list[str]
    instrument: list[str]
    key: str
    unit: str
    ghz: float

    def measure(self, program: list[str]) -> Row:
        """The cost of a run, and the counts that ``qpp_bench`` reports for the work."""
        report = run(
            [*self.launcher, *program, "--iters", "1" if self.instrument else "20", "--json"]
        )
        if self.instrument:
            cost = self.instrument_cost(program)
        elif report["ms_median"] is None:
            raise click.ClickException(
                "timing is not available under emulation; pass an --instrument"
            )
        else:
            cost = float(report["ms_median"])
        return {
            "kernel": report.get("kernel", ""),
            "cost": cost,
            "unit": self.unit,
            "macs": report.get("macs", ""),
            "elements": report.get("elements", ""),
            "bytes": report.get("bytes", ""),
            "roofline_cycles": "",
            "roofline_share": "",
            "compiler": report["compiler"],
        }

    def compare(self, work: Work, row: Row) -> Row:
        """The row with the roofline of its work, and the share of it that the cost reaches."""
        cost = float(row["cost"])
        cycles = {"cycles": cost, "ms": cost * self.ghz * 1e6}.get(str(row["unit"]))
        least = roofline(work.arguments, row)
        share: str | float = round(least / cycles, 3) if cycles and least else ""
        return row | {"roofline_cycles": round(least), "roofline_share": share}

    def instrument_cost(self, program: list[str]) -> float:
        """Cost of one run, by the instrument."""
        costs = []
        for runs in (WARM_RUNS, RUNS):
            value: Any = run([*self.instrument, *program, "--iters", str(runs)])
            for part in self.key.split("."):
                value = value.get(part) if isinstance(value, dict) else None
            if not isinstance(value, (int, float)):
                raise click.ClickException(
                    f"--key {self.key}: the instrument's JSON has no such number"
                )
            costs.append(float(value))
        return (costs[1] - costs[0]) / (RUNS - WARM_RUNS)


def find_commit() -> str:
    """The commit of the work tree."""
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parent,
    )
    return done.stdout.strip() or "unknown"


# -------------------------------------------------------------------------------------- reporting

NUMBERS = ("count", "cost", "macs", "elements", "bytes", "roofline_cycles", "roofline_share")


def read_rows(path: Path) -> dict[tuple[str, str], Row]:
    """The rows of an earlier run, by list and work."""
    rows: dict[tuple[str, str], Row] = {}
    with path.open(newline="") as file:
        for texts in csv.DictReader(file):
            rows[texts["list"], texts["work"]] = {
                name: json.loads(text) if name in NUMBERS and text else text
                for name, text in texts.items()
            }
    return rows


def write_rows(path: Path, rows: dict[tuple[str, str], Row]) -> None:
    """Writes the rows, with the names of the columns first."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(next(iter(rows.values()))))
        writer.writeheader()
        writer.writerows(rows.values())


def markdown(rows: list[Row]) -> str:
    """One table; ``n`` is how often the network needs the work."""
    unit = rows[0]["unit"]
    lines = [f"| n | work | kernel | {unit} | share of roofline |", "|---|---|---|---|---|"]
    for row in rows:
        cost = float(row["cost"])
        shown = f"{cost / 1e6:.3f} M" if cost >= 1e4 else f"{cost:.4g}"
        share = f"{100 * float(row['roofline_share']):.0f} %" if row["roofline_share"] else ""
        lines.append(f"| {row['count']} | `{row['work']}` | {row['kernel']} | {shown} | {share} |")
    return "\n".join(lines)


def update(document: Path, tables: dict[str, str]) -> None:
    """Replaces the text between the marks of each table that the document has."""
    text = document.read_text()
    for name, table in tables.items():
        begin, end = f"<!-- bench {name} -->\n", "<!-- bench end -->"
        before, found, rest = text.partition(begin)
        if found:
            text = f"{before}{begin}{table}\n{end}{rest.partition(end)[2]}"
    document.write_text(text)


@click.command()
@click.argument("bench", type=click.Path(exists=True, dir_okay=False))
@click.argument(
    "lists", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@click.option("--output", "-o", type=click.Path(dir_okay=False, writable=True, path_type=Path))
@click.option(
    "--only",
    metavar="PATTERN",
    help="Measure the works that match this part of their text, or glob; keep the other rows.",
)
@click.option("--no-measure", is_flag=True, help="Compute the tables from the costs in --output.")
@click.option("--launcher", default="", help="Command that runs BENCH, such as an emulator.")
@click.option("--instrument", default="", help="Command that measures the program it is given.")
@click.option("--key", default="cycles", show_default=True, help="Path of the number in its JSON.")
@click.option("--unit", default="ms", show_default=True, help="Unit of the costs.")
@click.option("--machine", default=platform.machine(), show_default=True, help="Machine's name.")
@click.option("--ghz", default=2.6, show_default=True, help="Clock, for the roofline of times.")
@click.option("--jobs", default=1, show_default=True, help="Concurrent runs of an instrument.")
@click.option(
    "--update",
    "documents",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Document whose tables are replaced.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of Markdown tables.")
def main(
    bench: str,
    lists: tuple[Path, ...],
    output: Path | None,
    only: str | None,
    no_measure: bool,
    launcher: str,
    instrument: str,
    key: str,
    unit: str,
    machine: str,
    ghz: float,
    jobs: int,
    documents: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Measure every shape of LISTS with the qpp_bench at BENCH."""
    if jobs > 1 and not instrument:
        raise click.UsageError(
            "--jobs: concurrent runs disturb each other's times; pass an --instrument"
        )
    keep = no_measure or only is not None
    if keep and not (output and output.exists()):
        option = "--no-measure" if no_measure else "--only"
        raise click.UsageError(f"{option}: expected the file of an earlier run as --output")
    meter = Meter(shlex.split(launcher), shlex.split(instrument), key, unit, ghz)
    works = {work.place: work for path in lists for work in read_list(path)}
    names = dict.fromkeys(work.network for work in works.values())
    rows: dict[tuple[str, str], Row] = {}
    if keep and output:
        rows = {
            place: row
            for place, row in read_rows(output).items()
            if place in works or place[0] not in names
        }
    programs = {
        work.text: [bench, *work.arguments]
        for place, work in works.items()
        if place not in rows or (only is not None and fnmatchcase(work.text, f"*{only}*"))
    }
    if no_measure and programs:
        raise click.UsageError(f"--no-measure: {output} has no cost of {', '.join(programs)}")
    about: Row = {
        "machine": machine,
        "commit": find_commit(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }
    with ThreadPoolExecutor(jobs) as executor:
        measured = list(
            tqdm(executor.map(meter.measure, programs.values()), "shapes", len(programs))
        )
    costs = dict(zip(programs, measured, strict=True))
    for place, work in works.items():
        row: Row = {"list": work.network, "count": work.count, "work": work.text}
        cost = costs.get(work.text)
        rows[place] = meter.compare(work, rows[place] | row if cost is None else row | cost | about)
    if output:
        write_rows(output, rows)
    tables = {
        name: markdown([rows[place] for place in works if place[0] == name]) for name in names
    }
    for document in documents:
        update(document, tables)
    if as_json:
        click.echo(json.dumps([rows[place] for place in works], indent=1))
    else:
        click.echo("\n\n".join(f"{name}\n\n{table}" for name, table in tables.items()))


if __name__ == "__main__":
    main()
