# SPDX-License-Identifier: Apache-2.0
"""What the demo makes of its own numbers. That it prints those of the README, CI sees."""

from __future__ import annotations

from typing import Any

import pytest
import qppengine as qe
from click.testing import CliRunner
from qppengine import demo
from qppengine.cli import main


def report(**changed: float) -> dict[str, Any]:
    """One as `demo.main` returns it, with the numbers of the README but for those `changed`."""
    psnr = {
        "fp16 fp16": 75.79,
        "W8A8 static, mean of the calibration set": 42.68,
        "W8A8 static, range of the calibration set": 42.47,
        "W8A8 static, fitted": 44.28,
        "W8A8 dynamic": 50.30,
        "W8A8 QPP": 50.95,
        "W8A4 static, mean of the calibration set": 26.68,
        "W8A4 static, range of the calibration set": 15.07,
        "W8A4 static, fitted": 24.38,
        "W8A4 dynamic": 29.76,
        "W8A4 QPP": 29.97,
    }
    assert changed.keys() <= psnr.keys()
    rows = []
    for key, value in (psnr | changed).items():
        kind, _, scheme = key.partition(" ")
        rows.append({"type": kind, "scheme": scheme, "psnr_truth": 29.0, "psnr_fp32": value})
    return {"results": rows}


def test_numbers_of_the_readme_make_sense() -> None:
    demo.check(report())


@pytest.mark.parametrize(
    ("row", "psnr", "problem"),
    [
        ("W8A8 QPP", 14.05, r"W8A8: QPP is 30\.2 dB below the better static row"),
        ("W8A4 QPP", 20.0, r"W8A4: QPP is 6\.7 dB below the better static row"),
        ("W8A8 dynamic", 40.0, r"W8A8: dynamic is 4\.3 dB below the better static row"),
        ("fp16 fp16", 30.0, r"W8A8: fp16 is 20\.3 dB below dynamic"),
    ],
)
def test_numbers_that_no_working_engine_gives_are_an_error(
    row: str, psnr: float, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = report(**{row: psnr})
    with pytest.raises(qe.Error, match=problem):
        demo.check(wrong)
    monkeypatch.setattr(demo, "main", lambda *_, **__: wrong)
    result = CliRunner().invoke(main, ["demo"])
    assert result.exit_code == 1
    assert str(psnr) in result.output  # the table is printed all the same
    assert "the results contradict the expected order" in result.output
