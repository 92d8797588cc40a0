# SPDX-License-Identifier: Apache-2.0
"""The same input gives the same bytes on every machine and with every set of kernels."""

from __future__ import annotations

import json
import zlib
from typing import TYPE_CHECKING

import numpy as np
import pytest
from qppengine import Session

from device.make_models import (
    BITS,
    FP16_OUTPUT,
    LAYERS,
    MODEL,
    NETWORKS,
    OUTPUTS,
    SCHEMES,
    SIGNATURES,
    fixed_image,
    fixed_rgb,
    sign,
    sign_layers,
)

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


@pytest.mark.parametrize("kernels", ["best", "ref"])
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", NETWORKS)
def test_every_layer_of_a_network_stores_the_same_bytes(
    models: Path, name: str, scheme: str, kernels: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kernels == "ref":
        monkeypatch.setenv("QPP_FORCE_KERNEL", "ref")
    expected = json.loads((models / LAYERS).read_text())[f"{name}/{scheme}"]
    layers = sign_layers(Session(models / f"{name}_int8.qpp", scheme, algorithm="direct"))
    assert len(layers) == len(expected)
    for layer, same in zip(layers, expected, strict=True):
        assert list(layer) == same


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", NETWORKS)
def test_networks_with_ends_in_fp16_are_nearly_the_same(
    models: Path, name: str, scheme: str
) -> None:
    expected = np.load(models / OUTPUTS)[f"{name}/{scheme}"]
    session = Session(models / f"{name}_fp16_ends.qpp", scheme, algorithm="direct")
    error = session.run(fixed_rgb()) - expected
    # The first layer rounds otherwise where the machine has fp16, and some numbers between two
    # levels of int8 go to the other one.
    assert np.sqrt(np.mean(error**2) / np.mean(expected**2)) < 0.03
