# SPDX-License-Identifier: Apache-2.0
"""Deprecated names of `serialize`, `load_graph` and `save`.

Use `qppengine.model_file.serialize`, `qppengine.load_graph` and `qppengine.save`.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from qppengine import model_file
from qppengine.model_file import load_graph
from qppengine.quantization import Calibration, Quantization
from qppengine.regression import fit
from qppengine.save import save

if TYPE_CHECKING:
    from qppengine.graph import Graph

__all__ = ["load_graph", "save", "serialize"]


def serialize(graph: Graph, quantization: Quantization | Calibration | None = None) -> bytes:
    """The bytes of a model file; a calibration is fitted first."""
    warnings.warn(
        "qppengine.serialize is deprecated; use qppengine.model_file.serialize(graph, "
        "qppengine.fit(calibration))",
        DeprecationWarning,
        stacklevel=2,
    )
    if isinstance(quantization, Calibration):
        quantization = fit(quantization)
    return model_file.serialize(graph, quantization)
