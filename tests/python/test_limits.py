# SPDX-License-Identifier: Apache-2.0
"""Limits of the sizes that a file can ask for."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest
from qppengine import _core
from qppengine.errors import ModelError, UnsupportedError
from qppengine.limits import MAXIMA, Limits


def test_the_engine_has_the_same() -> None:
    assert _core.limits() == {key: (n, MAXIMA[key]) for key, n in asdict(Limits()).items()}


@pytest.mark.parametrize("number", [0, -1, 1.5, True, None, 2**62])
def test_numbers_that_are_no_limits(number: Any) -> None:
    with pytest.raises(UnsupportedError, match=r"limits\.nodes: expected an integer from 1 to"):
        Limits(nodes=number)


def test_an_error_names_the_limit() -> None:
    limits = Limits(nodes=3)
    limits.check("nodes", 3, "the nodes")
    with pytest.raises(ModelError, match="the nodes: 4 exceeds the limit nodes = 3; pass limits="):
        limits.check("nodes", 4, "the nodes")
