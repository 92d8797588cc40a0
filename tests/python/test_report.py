# SPDX-License-Identifier: Apache-2.0
"""bench/report.py, with scripts in place of qpp_bench and of an instrument."""

from __future__ import annotations

import csv
import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "bench" / "report.py"

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


def written(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


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
    last = written(output)[1]
    assert last["compiler"] == "GCC 0"
    assert last["machine"] == "a board"
    assert last["commit"]
    assert last["date"]


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


def test_measures_only_what_matches(tmp_path: Path, shapes: Path) -> None:
    other = tmp_path / "other.txt"
    other.write_text("quantize --size 4x4x8\nadd --size 8x8x8\n")
    output = tmp_path / "out.csv"
    first = report(script(tmp_path / "bench", BENCH, ms="0.5"), shapes, other, "-o", output)
    assert first.returncode == 0, first.stderr
    before = written(output)

    # A list that is not named keeps its rows; one that is named has rows of its works only.
    shapes.write_text(shapes.read_text().replace("3 conv", "5 conv") + "minmax --size 4x4x8\n")
    bench = script(tmp_path / "bench", BENCH, ms="2")
    options = ("-o", output, "--machine", "another", "--only")
    done = report(bench, shapes, *options, "quant?ze", "--json")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert [(row["count"], row["cost"]) for row in rows] == [(5, 0.5), (1, 2), (1, 2)]
    after = written(output)
    assert after[0] == before[0] | {"count": "5"}
    assert after[1] == before[1] | {"cost": "2.0", "machine": "another", "roofline_share": "0.0"}
    assert after[2:4] == before[2:]
    assert after[4]["work"] == "minmax --size 4x4x8"

    shapes.write_text("quantize --size 4x4x8\n")
    done = report(bench, shapes, *options, "nothing")
    assert done.returncode == 0, done.stderr
    assert [row["work"] for row in written(output)] == [
        "quantize --size 4x4x8",
        "quantize --size 4x4x8",
        "add --size 8x8x8",
    ]

    done = report(bench, shapes, "--only", "quantize")
    assert done.returncode == 2
    assert "--only: expected the file of an earlier run as --output" in done.stderr


def test_refuses_the_times_of_an_emulator(tmp_path: Path, shapes: Path) -> None:
    bench = script(tmp_path / "bench", BENCH, ms="None")
    done = report(bench, shapes)
    assert done.returncode == 1
    assert "timing is not available under emulation" in done.stderr
    assert not done.stdout


def test_times_of_programs_side_by_side_are_refused(tmp_path: Path, shapes: Path) -> None:
    done = report(script(tmp_path / "bench", BENCH, ms="0.5"), shapes, "--jobs", 2)
    assert done.returncode == 2
    assert "concurrent runs" in done.stderr


def test_the_roofline_is_the_largest_bound() -> None:
    roofline = runpy.run_path(str(SCRIPT))["roofline"]
    conv = ["conv", "--dtype", "int8"]
    assert roofline(conv, {"macs": 3200, "bytes": 1000}) == 100
    assert roofline(["conv", "--dtype", "fp16"], {"macs": 3200}) == 200
    assert roofline(conv, {"macs": 3200, "bytes": 1 << 20}) == (512 << 10) / 12.8
    assert roofline(conv, {"macs": 3200, "bytes": 9 << 20}) == (5 << 20) / 4.6
    assert roofline(["linear", "--dtype", "int8"], {"macs": 3200, "bytes": 4600}) == 4600 / 4.6
    assert roofline(["add", "--dtype", "int8"], {"elements": 3200, "bytes": 9600}) == 1600
    assert roofline(["depthwise", "--dtype", "int8"], {"macs": 9 * 32}) == (24 + 24 + 52) / 2
    assert roofline(["depthwise", "--dtype", "fp16"], {"macs": 9 * 32}) == (36 + 12) / 2
    assert roofline(["predict"], {"elements": 3200}) == 0
    winograd = {"macs": 3200, "kernel": "winograd4_multiply_f16_f16_f16_8x8_neon_fp16"}
    assert roofline(conv, winograd) == roofline(["conv"], winograd) == 3200 / 4 / 16


def test_a_failing_bench_is_reported(tmp_path: Path, shapes: Path) -> None:
    bench = script(tmp_path / "bench", "#!{python}\nraise SystemExit('no such option')\n")
    done = report(bench, shapes)
    assert done.returncode == 1
    assert "no such option" in done.stderr


def test_documents_show_the_tables_of_the_results(tmp_path: Path) -> None:
    costs = tmp_path / "costs.csv"
    costs.write_bytes((ROOT / "bench" / "results" / "cortex_a76_modelled.csv").read_bytes())
    documents = {name: (ROOT / name).read_text() for name in ("README.md", "docs/performance.md")}
    options: list[object] = ["--no-measure", "-o", costs]
    for index, text in enumerate(documents.values()):
        (tmp_path / f"{index}.md").write_text(text)
        options += ["--update", tmp_path / f"{index}.md"]
    done = report(SCRIPT, *sorted((ROOT / "bench" / "shapes").glob("*.txt")), *options)
    assert done.returncode == 0, done.stderr
    for index, (name, text) in enumerate(documents.items()):
        assert (tmp_path / f"{index}.md").read_text() == text, name
    shares = [row["roofline_share"] for row in written(costs)]
    assert all(float(share) <= 1 for share in shares if share)


def test_tables_are_not_made_of_missing_costs(tmp_path: Path, shapes: Path) -> None:
    output = tmp_path / "out.csv"
    bench = script(tmp_path / "bench", BENCH, ms="0.5")
    done = report(bench, shapes, "--no-measure", "-o", output)
    assert done.returncode == 2
    assert "--no-measure: expected the file of an earlier run as --output" in done.stderr
    assert report(bench, shapes, "-o", output).returncode == 0
    shapes.write_text("minmax --size 4x4x8\n")
    done = report(bench, shapes, "--no-measure", "-o", output)
    assert done.returncode == 2
    assert "has no cost of minmax --size 4x4x8" in done.stderr
