# SPDX-License-Identifier: Apache-2.0
"""Networks for other programs: as quantized ONNX models, and as drawings."""

from qppengine.exporters.dot import to_dot
from qppengine.exporters.onnx_qdq import to_onnx

__all__ = ["to_dot", "to_onnx"]
