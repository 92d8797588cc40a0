# SPDX-License-Identifier: Apache-2.0
"""bench/report.py, with stand-ins for qpp_bench and for an instrument."""

from __future__ import annotations

import csv
import json
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
    path.write_text("# a comment\nconv --size 8x8x8   # another\n\nquantize --size 4x4x8\n")
    return path


def test_wall_clock(tmp_path: Path, shapes: Path) -> None:
    bench = script(tmp_path / "bench", BENCH, ms="0.5")
    output = tmp_path / "out.csv"
    done = report(bench, shapes, "-o", output, "--json")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert [row["work"] for row in rows] == ["conv --size 8x8x8", "quantize --size 4x4x8"]
    assert rows[0]["cost"] == 0.5
    assert rows[0]["per_unit"] == 1600
    with output.open(newline="") as file:
        written = list(csv.DictReader(file))
    assert written[1]["compiler"] == "GCC 0"
    assert written[1]["commit"]


def test_instrument(tmp_path: Path, shapes: Path) -> None:
    bench = script(tmp_path / "bench", BENCH, ms="None")
    counter = script(tmp_path / "counter", INSTRUMENT)
    options = ("--instrument", counter, "--key", "whole.cycles", "--unit", "cycles")
    done = report(bench, shapes, *options)
    assert done.returncode == 0, done.stderr
    assert "| `conv --size 8x8x8` | k | 200 | 4.00 |" in done.stdout

    done = report(bench, shapes, "--instrument", counter, "--key", "whole.seconds")
    assert done.returncode == 1
    assert "--key whole.seconds: the instrument's JSON has no such number" in done.stderr


def test_refuses_the_times_of_an_emulator(tmp_path: Path, shapes: Path) -> None:
    bench = script(tmp_path / "bench", BENCH, ms="None")
    done = report(bench, shapes)
    assert done.returncode == 1
    assert "elapsed time says nothing" in done.stderr
    assert not done.stdout


def test_a_failing_bench_is_reported(tmp_path: Path, shapes: Path) -> None:
    bench = script(tmp_path / "bench", "#!{python}\nraise SystemExit('no such option')\n")
    done = report(bench, shapes)
    assert done.returncode == 1
    assert "no such option" in done.stderr
