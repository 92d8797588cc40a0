# SPDX-License-Identifier: Apache-2.0
"""The driver of the fuzzers finds faults, and each fuzzer runs for a moment."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FUZZERS = Path(__file__).resolve().parents[1] / "fuzz"

SCRIPT = """
import os, time
from driver import Target, main
from qppengine.errors import ModelError

def attempt(data):
    kind = data.decode().strip()
    if kind == "crash":
        os.abort()
    if kind == "raise":
        raise KeyError("what")
    if kind == "memory":
        bytearray(100 << 20)
    if kind == "time":
        start = time.process_time()
        while time.process_time() < start + 2.5:
            pass
    if kind == "run":
        bytearray(100 << 20)
        return
    if kind:
        raise ModelError("no model")

def mutate(data, rng):
    return rng.choice((b"", b" ", b"refused")) if rng.random() < 0.9 else b"raise"

main(Target("test", lambda: [b""], mutate, attempt))
"""


def run(script: Path, *arguments: str) -> tuple[int, str]:
    ended = subprocess.run(
        [sys.executable, script, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=script.parent,
        env={"PYTHONPATH": str(FUZZERS)},
    )
    return ended.returncode, ended.stdout + ended.stderr


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "fuzz_test.py"
    path.write_text(SCRIPT)
    return path


@pytest.mark.parametrize(
    ("kind", "problem"),
    [
        ("crash", "ended the process: status -6"),
        ("raise", "KeyError: 'what'"),
        ("memory", "MB of memory, allowed are 64"),
        ("time", "s, allowed are 2.0"),
    ],
)
def test_a_problem_is_found(kind: str, problem: str, script: Path) -> None:
    (script.parent / "file").write_text(kind)
    status, text = run(script, "--reproduce", "file")
    assert status == 1
    assert problem in text


@pytest.mark.parametrize(
    ("kind", "end"), [("refused", "refused: no model"), ("run", "accepted"), ("", "accepted")]
)
def test_what_is_right(kind: str, end: str, script: Path) -> None:
    (script.parent / "file").write_text(kind)
    status, text = run(script, "--reproduce", "file")
    assert status == 0
    assert end in text


def test_a_finding_is_kept_and_repeats(script: Path) -> None:
    status, text = run(script, "--seconds", "30")
    assert status == 1
    assert "raised" in text
    (found,) = (script.parent / "build" / "findings").iterdir()
    assert found.read_bytes() == b"raise"
    assert run(script, "--reproduce", str(found))[0] == 1
    # Equal seeds find equal files.
    found.unlink()
    run(script, "--seconds", "30")
    assert found.exists()


@pytest.mark.parametrize("path", sorted(FUZZERS.glob("fuzz_*.py")), ids=lambda path: path.stem)
def test_each_fuzzer_for_a_moment(path: Path) -> None:
    if "import torch" in path.read_text():
        pytest.importorskip("torch")
    status, text = run(path, "--seconds", "3")
    assert status == 0, text
