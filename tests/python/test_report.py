# SPDX-License-Identifier: Apache-2.0
"""bench/report.py, with stand-ins for qpp_bench and for an instrument."""

from __future__ import annotations

import csv
import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "bench" / "report.py"

BENCH = """#!{python}
import json, sys
runs = int(sys.argv[sys.argv.index("--iters") + 1])
print(json.dumps({{"compiler": "GCC 0", "kernel": "k", "macs": 800, "ms_median": {ms}}}))
"""

# Costs 1000 to begin with and 200 a run.
INSTRUMENT = """#!{python}
import json, sys
runs = int(sys.argv[sys.argv.index("--iters") + 1])
print(json.dumps({{"whole": {{"cycles": 1000 + 200 * runs}}}}))
"""


def script(path: Path, text: str, **values: object) -> Path:
    path.write_text(text.format(python=sys.executable, **values))
    path.chmod(0o755)
    return path


def report(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def shapes(tmp_path: Path) -> Path:
    path = tmp_path / "shapes.txt"
    path.write_text(
        "# a comment\n3 conv --dtype int8 --size 8x8x8   # another\n\nquantize --size 4x4x8\n"
    )
    return path


def test_wall_clock(tmp_path: Path, shapes: Path) -> None:
    bench = script(tmp_path / "bench", BENCH, ms="0.5")
    output = tmp_path / "out.csv"
    done = report(bench, shapes, "-o", output, "--ghz", 0.002, "--machine", "a board", "--json")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    works = [(row["list"], row["count"], row["work"]) for row in rows]
    assert works == [
        ("shapes", 3, "conv --dtype int8 --size 8x8x8"),
        ("shapes", 1, "quantize --size 4x4x8"),
    ]
    assert rows[0]["cost"] == 0.5
    assert rows[0]["roofline_cycles"] == 25
    assert rows[0]["roofline_share"] == 0.025  # of the 1000 cycles of half a microsecond at 2 GHz
    with output.open(newline="") as file:
        written = list(csv.DictReader(file))
    assert written[1]["compiler"] == "GCC 0"
    assert written[1]["machine"] == "a board"
    assert written[1]["commit"]
    assert written[1]["date"]


def test_instrument(tmp_path: Path, shapes: Path) -> None:
    bench = script(tmp_path / "bench", BENCH, ms="None")
    counter = script(tmp_path / "counter", INSTRUMENT)
    options = ("--instrument", counter, "--key", "whole.cycles", "--unit", "cycles", "--jobs", 2)
    document = tmp_path / "document.md"
    document.write_text("Before\n<!-- bench shapes -->\nold\n<!-- bench end -->\nBehind\n")
    done = report(bench, shapes, *options, "--update", document)
    assert done.returncode == 0, done.stderr
    row = "| 3 | `conv --dtype int8 --size 8x8x8` | k | 200 | 12 % |"
    assert row in done.stdout
    text = document.read_text()
    assert row in text
    assert "old" not in text
    assert text.startswith("Before\n<!-- bench shapes -->\n| n |")
    assert text.endswith("|\n<!-- bench end -->\nBehind\n")

    done = report(bench, shapes, "--instrument", counter, "--key", "whole.seconds")
    assert done.returncode == 1
    assert "--key whole.seconds: the instrument's JSON has no such number" in done.stderr


def test_refuses_the_times_of_an_emulator(tmp_path: Path, shapes: Path) -> None:
    bench = script(tmp_path / "bench", BENCH, ms="None")
    done = report(bench, shapes)
    assert done.returncode == 1
    assert "elapsed time says nothing" in done.stderr
    assert not done.stdout


def test_times_of_programs_side_by_side_are_refused(tmp_path: Path, shapes: Path) -> None:
    done = report(script(tmp_path / "bench", BENCH, ms="0.5"), shapes, "--jobs", 2)
    assert done.returncode == 2
    assert "side by side" in done.stderr


def test_the_roofline_is_the_largest_bound() -> None:
    roofline = runpy.run_path(str(SCRIPT))["roofline"]
    conv = ["conv", "--dtype", "int8"]
    assert roofline(conv, {"macs": 3200, "bytes": 1000}) == 100
    assert roofline(["conv", "--dtype", "fp16"], {"macs": 3200}) == 200
    assert roofline(conv, {"macs": 3200, "bytes": 1 << 20}) == (512 << 10) / 12.8
    assert roofline(conv, {"macs": 3200, "bytes": 9 << 20}) == (5 << 20) / 4.6
    assert roofline(["linear", "--dtype", "int8"], {"macs": 3200, "bytes": 4600}) == 4600 / 4.6
    assert roofline(["add", "--dtype", "int8"], {"elements": 3200, "bytes": 9600}) == 1600
    assert roofline(["depthwise", "--dtype", "int8"], {"macs": 9 * 16}) == 30
    assert roofline(["predict"], {"elements": 3200}) == 0


def test_a_failing_bench_is_reported(tmp_path: Path, shapes: Path) -> None:
    bench = script(tmp_path / "bench", "#!{python}\nraise SystemExit('no such option')\n")
    done = report(bench, shapes)
    assert done.returncode == 1
    assert "no such option" in done.stderr
