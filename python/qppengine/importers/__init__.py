# SPDX-License-Identifier: Apache-2.0
"""Networks of other frameworks as a `Graph`."""

from __future__ import annotations

import io
import os
import sys
import warnings
from functools import partial
from typing import TYPE_CHECKING, Any

from qppengine.errors import (
    Error,
    FixedSizesWarning,
    ModelError,
    UnsupportedError,
    expect_type,
)
from qppengine.importers import aten as aten  # registers the importers
from qppengine.importers import onnx_operators as onnx_operators
from qppengine.importers import unary as unary
from qppengine.importers.onnx_model import read_onnx
from qppengine.importers.pt2 import read_pt2
from qppengine.importers.registry import to_graph
from qppengine.limits import DEFAULT_LIMITS, Limits
from qppengine.passes import optimize
from qppengine.paths import read_regular_file

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

    ``source`` is an ``.onnx`` file, its bytes, or the model itself. Nodes have the paths of the
    modules they come from where the exporter names them; ``name`` defaults to the graph's name.
    Inputs and outputs keep their names.

    The engine's tensors have four dimensions. Inputs and outputs with fewer get dimensions of size
    1: ``[N, C]`` is ``[N, C, 1, 1]``, ``[N, C, L]`` is ``[N, C, 1, L]``, ``[C]`` is
    ``[1, C, 1, 1]``.

    Raises `UnsupportedModelError`, which lists all operations the engine lacks, `UnsupportedError`
    for another operator set, `ModelError` for a damaged model and for one beyond `limits`,
    `FileError`.
    """
    expect_type("limits", limits, Limits, "a Limits object")
    try:
        return optimize(to_graph(read_onnx(source, limits), name), limits)
    except (Error, ImportError):
        raise
    except Exception as error:  # of a file that is malformed in a way that nobody foresaw
        raise ModelError(f"the ONNX model is malformed: {error!r}") from error


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
    an `ExportedProgram`, or a module; modules that `torch.compile` or `DataParallel` wrap are
    unwrapped. A module is exported in eval mode, without gradients, on ``example``: an input, or a
    tuple or list of inputs, each as the module takes it, with arrays in place of tensors if you
    like. ``dynamic_shapes`` goes to `torch.export.export`. By default height and width of 4-D
    inputs are left open; where the engine can run the network at fixed sizes only, they are those
    of the example, and a `FixedSizesWarning` says why. Nodes have the paths of the modules they
    come from; ``name`` defaults to the module's class.

    The engine's tensors have four dimensions. Inputs and outputs of another rank have the order of
    the module's elements: ``[N, C]`` is ``[N, C, 1, 1]``, ``[N, A, B]`` is ``[N, A, 1, B]``, and
    of outputs of more than four dimensions the first after the batch are merged. A map of indices
    is ``[N, 1, H, W]``.

    What the network computes from constants alone is computed here. Tensors that it changes in
    place are followed through views; its inputs are never written to. A value that is returned
    twice is two outputs.

    Raises `UnsupportedModelError`, which lists all operations the engine lacks, `UnsupportedError`
    for a source or example of another kind and for a module that `torch.export` cannot export,
    `ModelError` for a damaged file and for one beyond `limits`, `FileError` for one that cannot be
    read.
    """
    expect_type("limits", limits, Limits, "a Limits object")
    imported = partial(_imported, name, limits)
    if isinstance(source, (str, os.PathLike)):
        return imported(read_regular_file(source))
    torch = sys.modules.get("torch")  # only a program that has imported it can hand over a module
    if torch is not None and isinstance(source, torch.export.ExportedProgram):
        return imported(_saved(source))
    if torch is None or not isinstance(source, torch.nn.Module):
        raise UnsupportedError(
            f"expected a module, an ExportedProgram or a .pt2 path, got {type(source).__name__}"
        )
    if example is None:
        raise UnsupportedError(
            "a module is exported on an example input: from_torch(module, example)"
        )
    module = _unwrapped(source)
    inputs = _as_tensors(example)
    if dynamic_shapes is not None:
        return imported(_exported(module, inputs, dynamic_shapes))
    try:
        return imported(_exported(module, inputs, _dynamic_sizes(module, inputs)))
    except Error as error:
        reason = str(error)
    graph = imported(_exported(module, inputs, None))  # raises its own errors
    sizes = ", ".join(f"{value.name} {list(value.shape)}" for value in graph.inputs)
    warnings.warn(
        f"the network accepts images of one size, {sizes}: with dynamic height and width {reason}",
        FixedSizesWarning,
        stacklevel=2,
    )
    return graph


def _imported(name: str | None, limits: Limits, data: bytes) -> Graph:
    return optimize(to_graph(read_pt2(data, limits), name), limits)


def _unwrapped(module: torch.nn.Module) -> torch.nn.Module:
    """The module that `torch.compile`, `DataParallel` or `DistributedDataParallel` wraps."""
    import torch

    wrappers = (torch.nn.DataParallel, torch.nn.parallel.DistributedDataParallel)
    while True:
        if isinstance(inner := getattr(module, "_orig_mod", None), torch.nn.Module):
            module = inner
        elif isinstance(module, wrappers):
            module = module.module
        else:
            return module


def _as_tensors(example: Any) -> tuple[Any, ...]:
    """The inputs of a module, arrays anywhere in them as tensors."""
    import numpy as np
    import torch
    from torch.utils._pytree import tree_map

    inputs = tuple(example) if isinstance(example, (tuple, list)) else (example,)
    try:
        tensors: tuple[Any, ...] = tree_map(
            lambda leaf: torch.as_tensor(leaf) if isinstance(leaf, np.ndarray) else leaf, inputs
        )
    except Exception as error:  # torch names no exceptions
        raise UnsupportedError(f"the example cannot become tensors: {error}") from error
    return tensors


def _dynamic_sizes(module: torch.nn.Module, inputs: tuple[Any, ...]) -> Any:
    """Dynamic shapes that leave height and width open where the module allows."""
    import torch
    from torch.utils._pytree import tree_leaves

    open_size = torch.export.Dim.AUTO
    shapes = torch.export.ShapesCollection()
    for leaf in tree_leaves(inputs):
        if isinstance(leaf, torch.Tensor) and leaf.ndim == 4:
            shapes[leaf] = {2: open_size, 3: open_size}
    try:
        return shapes.dynamic_shapes(module, inputs)
    except Exception as error:
        raise _cannot_export(module, error) from error


def _exported(module: torch.nn.Module, inputs: tuple[Any, ...], dynamic_shapes: Any) -> bytes:
    """The bytes of the ``.pt2`` file of a module, which keeps its training mode."""
    import torch

    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        with torch.no_grad():
            program = torch.export.export(module, inputs, dynamic_shapes=dynamic_shapes)
    except Exception as error:  # torch and the module raise any exception
        raise _cannot_export(module, error) from error
    finally:
        for part, training in modes.items():
            part.training = training
    return _saved(program)


def _cannot_export(module: torch.nn.Module, error: Exception) -> UnsupportedError:
    return UnsupportedError(
        f"torch.export cannot export {type(module).__name__} on this example: "
        f"{type(error).__name__}: {error}"
    )


def _saved(program: torch.export.ExportedProgram) -> bytes:
    import torch

    buffer = io.BytesIO()
    try:
        with warnings.catch_warnings():
            # Of tensors that are parts of their storage, which the reader takes as they are.
            warnings.filterwarnings("ignore", "No complete tensor found")
            torch.export.save(program, buffer)
    except (
        Exception
    ) as error:  # of programs that it cannot write, such as those with a user's own operator
        raise UnsupportedError(
            f"torch.export cannot save the program: {type(error).__name__}: {error}"
        ) from error
    return buffer.getvalue()
