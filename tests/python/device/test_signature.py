# SPDX-License-Identifier: Apache-2.0
"""The same input gives the same bytes on every machine and with every set of kernels."""

from __future__ import annotations

import json
import zlib
from typing import TYPE_CHECKING

import numpy as np
import pytest
from qppengine import Session

from device.make_models import BITS, FP16_OUTPUT, MODEL, SCHEMES, SIGNATURES, fixed_image, sign

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.device


def test_input_is_the_same(models: Path) -> None:
    signatures = json.loads((models / SIGNATURES).read_text())
    assert zlib.crc32(fixed_image().tobytes()) == signatures["input"]


@pytest.mark.parametrize("kernels", ["best", "ref"])
@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_int8_output_is_the_same_to_the_last_bit(
    models: Path, scheme: str, bits: int, kernels: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kernels == "ref":
        monkeypatch.setenv("QPP_FORCE_KERNEL", "ref")
    signatures = json.loads((models / SIGNATURES).read_text())
    session = Session(models / MODEL, scheme, activation_bits=bits, algorithm="direct")
    assert sign(session, fixed_image()) == signatures[f"{scheme}/{bits}"]
    if kernels == "ref":
        names = {step["kernel"] for step in session.explain()} - {""}
        assert all(name.endswith("_ref") for name in names)


def test_fp16_output_is_nearly_the_same(models: Path) -> None:
    expected = np.load(models / FP16_OUTPUT)
    output = Session(models / MODEL, "fp16").run(fixed_image())
    # Sums of up to 576 products and tanh, in fp16 where the machine has it.
    np.testing.assert_allclose(output, expected, atol=4e-3)
