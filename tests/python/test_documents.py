# SPDX-License-Identifier: Apache-2.0
"""What the documents say can be run is run by CI, or listed in CONTRIBUTING.md with the reason."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import qppengine as qe

ROOT = Path(__file__).resolve().parents[2]

if TYPE_CHECKING:
    from types import ModuleType


@pytest.fixture
def blocks(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "tests" / "docs")
    import run_blocks

    return run_blocks


def read(path: str) -> str:
    return (ROOT / path).read_text()


def find_untested(makefile: str, runs: str, left_out: str) -> set[str]:
    """Targets that neither `runs` makes, directly or as prerequisites, nor `left_out` names."""
    rules = dict(re.findall(r"^([\w.][\w./-]*):(?!=) *([^#\n]*)", makefile, re.MULTILINE))
    targets = {name for name in rules if re.fullmatch(r"[a-z0-9-]+", name)}
    reached: set[str] = set()
    pending = [
        name for line in re.findall(r"\bmake ((?:[a-z0-9-]+ ?)+)", runs) for name in line.split()
    ]
    while pending:
        name = pending.pop()
        if name in rules and name not in reached:
            reached.add(name)
            pending += rules[name].split()
    return targets - reached - set(re.findall(r"`make ([a-z0-9-]+)`", left_out))


def test_find_untested_can_fail() -> None:
    makefile = "A := b\nall: one  ## All\none two:\nthree: one ## Three\nfour: four.txt\n\tcp\n"
    assert find_untested(makefile, "make three", "") == {"all", "four"}
    assert find_untested(makefile, "make all three", "| `make four` | slow |") == set()


def test_every_target_is_made_by_ci_or_listed_with_the_reason() -> None:
    runs = read(".ci/run") + read("README.md")
    left_out = read("CONTRIBUTING.md").partition("## What CI runs")[2]
    assert not find_untested(read("Makefile"), runs, left_out)


def test_every_block_of_the_readme_has_a_run(blocks: ModuleType) -> None:
    headings: dict[str, int] = {}
    for block in blocks.find_blocks(read("README.md")):
        headings[block.heading] = headings.get(block.heading, 0) + 1
    assert headings == {heading: len(runners) for heading, runners in blocks.README.items()}


def test_tables_are_compared_to_a_tenth_of_a_decibel(blocks: ModuleType) -> None:
    readme = read("README.md")
    rows = readme.partition("| type | scheme |")[2].partition("\n\n")[0].splitlines()[2:]
    printed = "\n".join(re.sub(r"[|*]", " ", row) + " 123 4567.0" for row in rows)
    blocks.compare_tables(readme, printed)
    blocks.compare_tables(readme, printed.replace("50.95", "50.89"))
    for wrong in (printed.replace("50.95", "14.05"), printed.replace("QPP", "PPQ")):
        with pytest.raises(AssertionError, match="W8A8 QPP"):
            blocks.compare_tables(readme, wrong)


def test_blocks_of_the_guide_run(
    blocks: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    net = qe.GraphBuilder("small")
    x = net.input("x", (1, 1, None, None))
    net.output(net.conv2d(x, rng.normal(size=(1, 1, 3, 3)), padding=1, activation="relu"))
    names: dict[str, Any] = {
        "qe": qe,
        "graph": net.build(),
        "samples": [rng.random((1, 1, 8, 8), np.float32) for _ in range(8)],
    }
    found = [b.text for b in blocks.find_blocks(read("docs/qpp.md")) if b.language == "python"]
    assert len(found) >= 2
    monkeypatch.chdir(tmp_path)
    for text in found:
        exec(text, names)
    assert (tmp_path / "model.qpp").exists()
