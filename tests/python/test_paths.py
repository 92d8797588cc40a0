# SPDX-License-Identifier: Apache-2.0
"""Files are written completely or not at all; only regular files are read and replaced."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import qppengine as qe
from click.testing import CliRunner
from qppengine.cli import main
from qppengine.errors import FileError
from qppengine.paths import write_file


def test_a_file_is_written_and_replaced(tmp_path: Path) -> None:
    for data in (b"", b"one", b"\0" * (3 << 20)):
        write_file(tmp_path / "a", data)
        assert (tmp_path / "a").read_bytes() == data
    assert list(tmp_path.iterdir()) == [tmp_path / "a"]


def test_permissions(tmp_path: Path) -> None:
    path = tmp_path / "a"
    umask = os.umask(0o027)
    try:
        write_file(path, b"new")
    finally:
        os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640  # as any new file
    for mode in (0o600, 0o444, 0o755):
        path.chmod(mode)
        write_file(path, b"again")
        assert stat.S_IMODE(path.stat().st_mode) == mode


def test_a_symbolic_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    target = tmp_path / "folder" / "file"
    for link, names in (("a", "folder/file"), ("b", "a"), ("c", str(target))):
        (tmp_path / link).symlink_to(names)
        write_file(tmp_path / link, link.encode())  # the first one names no file yet
        assert (tmp_path / link).is_symlink()
        assert target.read_text() == link
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(FileError, match="cannot write"):
        write_file(tmp_path / "loop", b"")
    assert (tmp_path / "loop").is_symlink()


def test_nothing_else_than_a_file_is_replaced(tmp_path: Path) -> None:
    fifo, folder, link = (tmp_path / name for name in ("fifo", "folder", "link"))
    os.mkfifo(fifo)
    folder.mkdir()
    link.symlink_to("/dev/null")
    for path in (fifo, link, Path("/dev/null")):
        with pytest.raises(FileError, match="it exists and is not a regular file"):
            write_file(path, b"data")
    with pytest.raises(FileError, match="Is a directory"):
        write_file(folder, b"data")
    assert stat.S_ISFIFO(fifo.stat().st_mode)
    assert stat.S_ISCHR(link.stat().st_mode)
    assert sorted(tmp_path.iterdir()) == [fifo, folder, link]


def test_every_reader_refuses_what_is_not_a_regular_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")  # opening one waits for its other end, and /dev/zero has no end
    for read in (qe.Session, qe.load_graph, qe.from_torch, qe.from_onnx, qe.Calibration.load):
        for path in (tmp_path / "fifo", Path("/dev/zero")):
            with pytest.raises(FileError, match="regular file"):
                read(path)
        with pytest.raises(FileError, match=r"null (byte|character)|expected the path"):
            read(f"{tmp_path}/a\0")


def test_a_failed_check_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("old")

    def refuse(written: Path) -> None:
        assert written.read_text() == "new"
        raise qe.ModelError("no")

    with pytest.raises(qe.ModelError):
        write_file(path, b"new", refuse)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    script = (
        "import sys, time; from qppengine.paths import write_file\n"
        "def check(path): print(path, flush=True); time.sleep(60)\n"
        "write_file(sys.argv[1], b'data', check)"
    )
    path = tmp_path / "a"
    other = tmp_path / f".{path.name}b.{'0' * 32}"
    other.write_text("of another file")
    with subprocess.Popen([sys.executable, "-c", script, path], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        temporary = Path(process.stdout.readline().decode().strip())
        write_file(path, b"one")  # the file that is being written stays
        assert temporary.exists()
        process.send_signal(signal.SIGKILL)
    assert temporary.exists()
    write_file(path, b"two")
    assert sorted(tmp_path.iterdir()) == sorted([path, other])


def test_every_writer_refuses_a_device(
    tmp_path: Path, graph: qe.Graph, calibration: qe.Calibration, model: Path
) -> None:
    device = tmp_path / "device"
    device.symlink_to("/dev/full")
    np.save(tmp_path / "x.npy", np.zeros((1, 3, 20, 24), np.float32))
    with pytest.raises(FileError, match="not a regular file"):
        qe.save(device, graph)
    with pytest.raises(FileError, match="not a regular file"):
        calibration.save(device)
    for command in (
        ["run", str(model), "--input", str(tmp_path / "x.npy"), "-o", str(device)],
        ["inspect", str(model), "--dot", str(device)],
        ["bench", str(model), "--iters", "1", "--profile", "--trace", str(device)],
    ):
        result = CliRunner().invoke(main, command)
        assert result.exit_code != 0
        assert "not a regular file" in result.output, result.output
