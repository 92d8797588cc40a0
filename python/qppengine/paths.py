# SPDX-License-Identifier: Apache-2.0
"""Paths of files, checked where users give them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from qppengine.errors import FileError


def to_path(path: Any) -> Path:
    """The path of a file. Raises `FileError` for what cannot name one."""
    text = os.fspath(path) if isinstance(path, (str, os.PathLike)) else None
    if not isinstance(text, str):
        raise FileError(f"expected the path of a file, got {type(path).__name__} {path!r:.100}")
    if not Path(text).name or "\0" in text:
        raise FileError(f"expected the path of a file, got {text!r}")
    return Path(text)
