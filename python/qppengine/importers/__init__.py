# SPDX-License-Identifier: Apache-2.0
"""Networks of other frameworks as a `Graph`."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qppengine.errors import FileError, UnsupportedError
from qppengine.importers import aten as aten  # registers the importers
from qppengine.importers import onnx_operators as onnx_operators
from qppengine.importers.onnx_model import read_onnx
from qppengine.importers.pt2 import read_pt2
from qppengine.importers.registry import to_graph
from qppengine.limits import DEFAULT_LIMITS, Limits
from qppengine.passes import optimize

if TYPE_CHECKING:
    import onnx
    import torch

    from qppengine.graph import Graph

__all__ = ["from_onnx", "from_torch"]


def from_onnx(
    source: str | os.PathLike[str] | bytes | onnx.ModelProto,
    name: str | None = None,
    *,
    limits: Limits = DEFAULT_LIMITS,
) -> Graph:
    """Imports an ONNX model of floating-point numbers and optimizes it (`qppengine.passes`).

    ``source`` is an ``.onnx`` file, its bytes, or the model itself. Nodes bear the paths of the
    modules they come from as far as the exporter tells them; ``name`` defaults to the graph's name.
    Inputs and outputs keep their names.

    The engine's tensors have four dimensions. Inputs and outputs with fewer get dimensions of size
    1: ``[N, C]`` is ``[N, C, 1, 1]``, ``[N, C, L]`` is ``[N, C, 1, L]``, ``[C]`` is
    ``[1, C, 1, 1]``.

    Raises `UnsupportedModelError`, which lists all operations the engine lacks, `UnsupportedError`
    for another operator set, `ModelError` for a damaged model and for one beyond `limits`,
    `FileError`.
    """
    return optimize(to_graph(read_onnx(source, limits), name))


def from_torch(
    source: torch.nn.Module | torch.export.ExportedProgram | str | os.PathLike[str],
    example: Any = None,
    dynamic_shapes: Any = None,
    name: str | None = None,
    *,
    limits: Limits = DEFAULT_LIMITS,
) -> Graph:
    """Imports a PyTorch network and optimizes it (`qppengine.passes`).

    ``source`` is a ``.pt2`` file of `torch.export.save`, for which PyTorch need not be installed,
    an `ExportedProgram`, or a module. A module is exported in eval mode on ``example``, an input
    (tensor or array) or a tuple of inputs; ``dynamic_shapes`` goes to `torch.export.export`, and by
    default height and width of 4-D inputs are left open wherever the module allows.
    Nodes bear the paths of the modules they come from; ``name`` defaults to the module's class.

    The engine's tensors have four dimensions. Outputs of another rank have the order of the
    module's elements: ``[N, C]`` is ``[N, C, 1, 1]``, ``[N, A, B]`` is ``[N, A, 1, B]``, and of
    more than four dimensions the first behind the batch are merged. A map of indices is
    ``[N, 1, H, W]``.

    Raises `UnsupportedModelError`, which lists all operations the engine lacks, `ModelError` for a
    damaged file and for one beyond `limits`, `FileError` for one that cannot be read.
    """
    if isinstance(source, (str, os.PathLike)):
        try:
            data = Path(source).read_bytes()
        except OSError as error:
            raise FileError(f"cannot read {os.fspath(source)!r}: {error.strerror}") from error
    else:
        data = _export(source, example, dynamic_shapes)
    return optimize(to_graph(read_pt2(data, limits), name))


def _export(source: Any, example: Any, dynamic_shapes: Any) -> bytes:
    """The bytes of the ``.pt2`` file of a module or program."""
    import torch

    if isinstance(source, torch.nn.Module):
        if example is None:
            raise TypeError("a module is exported on an example input: from_torch(module, example)")
        inputs = example if isinstance(example, tuple) else (example,)
        tensors = tuple(torch.as_tensor(x) for x in inputs)
        if dynamic_shapes is None:
            # AUTO lets the export fix the sizes a module insists on.
            open_size = torch.export.Dim.AUTO
            dynamic_shapes = tuple(
                {2: open_size, 3: open_size} if x.ndim == 4 else None for x in tensors
            )
        modes = {module: module.training for module in source.modules()}
        source.eval()
        try:
            source = torch.export.export(source, tensors, dynamic_shapes=dynamic_shapes)
        finally:
            for module, training in modes.items():
                module.training = training
    if not isinstance(source, torch.export.ExportedProgram):
        raise UnsupportedError(
            f"expected a module, an ExportedProgram or a .pt2 path, got {type(source).__name__}"
        )
    buffer = io.BytesIO()
    torch.export.save(source, buffer)
    return buffer.getvalue()
