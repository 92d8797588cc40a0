# SPDX-License-Identifier: Apache-2.0
"""The files that commands read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from qppengine.errors import FileError, ModelError
from qppengine.importers import from_onnx, from_torch
from qppengine.model_file import load_graph

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from qppengine.graph import Graph
    from qppengine.ir import Array


# By suffix; other files are models of the package's own.
IMPORTERS: dict[str, Callable[[Path], Graph]] = {".pt2": from_torch, ".onnx": from_onnx}


def load_network(path: Path) -> Graph:
    """The network of a .pt2, .onnx or .qpp file."""
    return IMPORTERS.get(path.suffix, load_graph)(path)


def load_array(path: Path) -> Any:
    """The array of a .npy file. Raises `FileError`, `ModelError`."""
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        raise FileError(f"cannot read {str(path)!r}: {error.strerror}") from error
    except (ValueError, EOFError) as error:
        raise ModelError(f"{str(path)!r} is not a .npy file: {error}") from error


def load_batches(path: Path) -> Iterator[Array]:
    """The batches of a .npy file or a folder of them."""
    return map(load_array, sorted(path.glob("*.npy")) if path.is_dir() else [path])
