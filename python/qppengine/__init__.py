# SPDX-License-Identifier: Apache-2.0
"""Quantized neural-network inference whose quantization parameters are predicted per sample.

>>> import qppengine as qe
>>> graph = qe.from_torch("model.pt2")
>>> calibration = qe.calibrate(graph, samples, alpha=0.9997)
>>> qe.save("model.qpp", graph, qe.fit(calibration))
>>> session = qe.Session("model.qpp", scheme="qpp")
>>> y = session.run(x)
"""

from qppengine.builder import GraphBuilder
from qppengine.calibrate import calibrate
from qppengine.errors import (
    CalibrationError,
    DTypeError,
    Error,
    FileError,
    FixedSizesWarning,
    ModelError,
    NonFiniteError,
    ShapeError,
    UnsupportedError,
    UnsupportedModelError,
)
from qppengine.exporters import to_dot, to_onnx
from qppengine.graph import Graph
from qppengine.importers import from_onnx, from_torch
from qppengine.ir import InputInfo, Node
from qppengine.limits import Limits
from qppengine.model_file import load_graph
from qppengine.passes import keep_fp16
from qppengine.profile import Profile
from qppengine.quantization import (
    DEFAULT_FEATURES,
    BoundSet,
    Calibration,
    Feature,
    Plan,
    Position,
    Predictor,
    Quantization,
)
from qppengine.records import Memory, Stats, Step, StepTime
from qppengine.regression import fit
from qppengine.save import save
from qppengine.session import SCHEMES, Session, StoredValue, __version__
from qppengine.weights import quantize_weights

__all__ = [
    "DEFAULT_FEATURES",
    "SCHEMES",
    "BoundSet",
    "Calibration",
    "CalibrationError",
    "DTypeError",
    "Error",
    "Feature",
    "FileError",
    "FixedSizesWarning",
    "Graph",
    "GraphBuilder",
    "InputInfo",
    "Limits",
    "Memory",
    "ModelError",
    "Node",
    "NonFiniteError",
    "Plan",
    "Position",
    "Predictor",
    "Profile",
    "Quantization",
    "Session",
    "ShapeError",
    "Stats",
    "Step",
    "StepTime",
    "StoredValue",
    "UnsupportedError",
    "UnsupportedModelError",
    "__version__",
    "calibrate",
    "fit",
    "from_onnx",
    "from_torch",
    "keep_fp16",
    "load_graph",
    "quantize_weights",
    "save",
    "to_dot",
    "to_onnx",
]
