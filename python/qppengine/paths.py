# SPDX-License-Identifier: Apache-2.0
"""Checks paths from callers, reads files, and writes them atomically."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import stat
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qppengine.errors import FileError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def to_path(path: Any) -> Path:
    """The path of a file. Raises `FileError` for any other object or text."""
    text = os.fspath(path) if isinstance(path, (str, os.PathLike)) else None
    if not isinstance(text, str):
        raise FileError(f"expected the path of a file, got {type(path).__name__} {path!r:.100}")
    if not Path(text).name or "\0" in text:
        raise FileError(f"expected the path of a file, got {text!r}")
    return Path(text)


def read_regular_file(path: str | os.PathLike[str]) -> bytes:
    """The bytes of a file. Raises `FileError`, also for endless ones, such as devices."""
    source = Path(path)
    try:
        if not stat.S_ISREG(source.stat().st_mode):
            raise FileError(f"cannot read {os.fspath(source)!r}: not a regular file")
        return source.read_bytes()
    except (OSError, ValueError) as error:
        if isinstance(error, FileError):
            raise
        cause = error.strerror if isinstance(error, OSError) else error
        raise FileError(f"cannot read {os.fspath(source)!r}: {cause}") from error


def write_file(path: Any, data: bytes, check: Callable[[Path], object] | None = None) -> None:
    """Writes a file atomically: it appears complete or not at all.

    Replaces an existing file, or the target of a symbolic link, and keeps its permissions. Before
    that, `check` is called with the path of a temporary file of this content; it rejects the
    content by an exception. Removes temporary files of interrupted calls.

    Raises `FileError` if the path cannot be written, or is not a file, such as a device or a
    folder.
    """
    given = to_path(path)
    try:
        target = Path(os.path.realpath(given))
        mode = _mode_of_file(target)
        _remove_abandoned(target)
        with _temporary_file(target) as (file, temporary):
            view = memoryview(data)
            while view:
                view = view[os.write(file, view) :]
            if mode is not None:
                os.fchmod(file, mode)
            os.fsync(file)
            if check is not None:
                check(temporary)
            temporary.replace(target)
    except OSError as error:
        if isinstance(error, FileError):
            raise
        raise FileError(f"cannot write {str(given)!r}: {error.strerror}") from error


def _mode_of_file(path: Path) -> int | None:
    """The permissions of an existing file, None where there is none."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(21, "Is a directory")
    if not stat.S_ISREG(mode):
        raise FileError(f"cannot write {str(path)!r}: it exists and is not a regular file")
    return stat.S_IMODE(mode)


@contextlib.contextmanager
def _temporary_file(target: Path) -> Iterator[tuple[int, Path]]:
    """A new file, locked as long as it is written, and removed at the end unless renamed.

    It is in the folder of the target: a rename is atomic only within a file system.
    """
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        with contextlib.suppress(OSError):  # not every file system has locks
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield file, temporary
    finally:
        temporary.unlink(missing_ok=True)
        os.close(file)


def _remove_abandoned(target: Path) -> None:
    """Removes temporary files of this target that no process writes: their locks are free."""
    pattern = re.compile(rf"\.{re.escape(target.name)}\.[0-9a-f]{{32}}")
    for path in target.parent.glob(".*"):
        if not pattern.fullmatch(path.name) or path.is_symlink():
            continue
        with contextlib.suppress(OSError):
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
            finally:
                os.close(file)
