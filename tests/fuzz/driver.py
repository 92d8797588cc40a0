# SPDX-License-Identifier: Apache-2.0
"""Feeds altered files to an importer or loader in another process, and measures their cost.

A file must be accepted or refused with one of the package's errors; refusing it must cost no more
than 64 MB and 8 bytes for every byte of it, and 2 seconds and linear time. A file that breaks this
is written to ``build/findings`` together with the command that repeats it.

Each ``fuzz_*.py`` of this folder describes a `Target` and hands it to `main`:

    python tests/fuzz/fuzz_qpp.py --seconds 60 [--seed 1]
    python tests/fuzz/fuzz_qpp.py --reproduce build/findings/qpp-1-42.qpp
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import faulthandler
import gc
import json
import os
import select
import subprocess
import sys
import tempfile
import time
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import IO, TYPE_CHECKING

from qppengine.errors import Error

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MEGABYTE = 2**20

# What refusing a file of n bytes may cost ...
BASE_BYTES, BYTES_PER_BYTE = 64 * MEGABYTE, 8
BASE_SECONDS, SECONDS_PER_BYTE = 2.0, 0.2 / MEGABYTE
# ... and the cost of a file that is accepted, and run.
RUN_BYTES, RUN_SECONDS = 2048 * MEGABYTE, 60.0
_HANG = 180  # seconds on the wall clock


@dataclass(frozen=True)
class Target:
    """What is fuzzed.

    Attributes:
        name: Of the reproducers; also how their file names end.
        seeds: Makes the sound files that mutants come from.
        mutate: A variant of a file.
        attempt: Loads a file, and runs it where that costs little. It may raise nothing but the
            package's errors.
    """

    name: str
    seeds: Callable[[], Sequence[bytes]]
    mutate: Callable[[bytes, Random], bytes]
    attempt: Callable[[bytes], object]


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended. `crash` is empty unless it raised another exception or died."""

    accepted: bool = False
    message: str = ""  # of the package's error
    seconds: float = 0
    bytes: int = 0
    crash: str = ""

    def problem(self, size: int) -> str:
        """What is wrong with this outcome for a file of `size` bytes, or nothing."""
        most_bytes, most_seconds = RUN_BYTES, RUN_SECONDS
        if not self.accepted:
            most_bytes = BASE_BYTES + BYTES_PER_BYTE * size
            most_seconds = BASE_SECONDS + SECONDS_PER_BYTE * size
        if self.crash:
            return self.crash
        if self.bytes > most_bytes:
            return f"took {self.bytes / MEGABYTE:.0f} MB of memory, allowed are {most_bytes >> 20}"
        if self.seconds > most_seconds:
            return f"took {self.seconds:.1f} s, allowed are {most_seconds:.1f}"
        return ""


def main(target: Target) -> None:
    """The command line of a target. Exits with status 1 on the first file that breaks the rules."""
    parser = argparse.ArgumentParser(description=f"Fuzzes files of the kind {target.name}.")
    parser.add_argument("--seconds", type=float, default=60, help="how long, 60 by default")
    parser.add_argument("--seed", type=int, default=1, help="equal seeds try equal files")
    parser.add_argument("--reproduce", type=Path, metavar="FILE", help="try this file only")
    parser.add_argument("--write-seeds", type=Path, metavar="FOLDER", help="write them, and end")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        serve(target)
        return
    if options.write_seeds is not None:
        options.write_seeds.mkdir(parents=True, exist_ok=True)
        for index, data in enumerate(target.seeds()):
            (options.write_seeds / f"{index}.{target.name}").write_bytes(data)
        return
    with Worker([sys.executable, sys.argv[0], "--worker"]) as worker:
        if options.reproduce is not None:
            sys.exit(reproduce(worker, options.reproduce))
        sys.exit(fuzz(target, worker, options.seconds, options.seed))


def fuzz(target: Target, worker: Worker, seconds: float, seed: int) -> int:
    """Tries mutants until the time is over. Returns the exit status."""
    seeds = target.seeds()
    for data in seeds:
        outcome = worker.attempt(data)
        if not outcome.accepted:
            print(f"{target.name}: a seed is not accepted: {outcome.message or outcome.crash}")
            return 1
    tried = accepted = 0
    messages: set[str] = set()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        rng = Random(f"{seed}/{tried}")
        data = rng.choice(seeds)
        for _ in range(rng.choice((1, 1, 1, 2, 3, 5))):
            data = target.mutate(data, rng)
        outcome = worker.attempt(data)
        if problem := outcome.problem(len(data)):
            path = Path("build/findings") / f"{target.name}-{seed}-{tried}.{target.name}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            print(f"{target.name}: a file of {len(data)} bytes {problem}")
            print(f"repeat it with: {sys.executable} {sys.argv[0]} --reproduce {path}")
            return 1
        tried += 1
        accepted += outcome.accepted
        messages.add("".join(c for c in outcome.message[-60:] if not c.isdigit()))
    print(
        f"{target.name}: {tried} files in {seconds:.0f} s, of which {accepted} were accepted; "
        f"{len(messages)} different endings of messages"
    )
    return 0


def reproduce(worker: Worker, path: Path) -> int:
    """Tries one file. Returns the exit status."""
    data = path.read_bytes()
    outcome = worker.attempt(data)
    end = "accepted" if outcome.accepted else f"refused: {outcome.message}"
    print(f"{path}: {outcome.problem(len(data)) or end}")
    print(f"{outcome.seconds:.2f} s, {outcome.bytes / MEGABYTE:.1f} MB")
    return 1 if outcome.problem(len(data)) else 0


class Worker:
    """The process that tries files; a new one is started after each that ended it."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = list(command)
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as this)

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()
        self._log.close()

    def attempt(self, data: bytes) -> Outcome:
        """Tries one file."""
        process = self._process = self._process or subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log
        )
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # then no answer follows, either
            process.stdin.write(len(data).to_bytes(8, "little") + data)
            process.stdin.flush()
        if not select.select([process.stdout], [], [], _HANG)[0]:
            self._stop()
            return Outcome(crash=f"took more than {_HANG} s")
        if line := process.stdout.readline():
            return Outcome(**json.loads(line))
        return Outcome(crash=f"ended the process: {self._stop()}")

    def _stop(self) -> str:
        """Ends the process, if any. Returns its status and the last lines it wrote."""
        process, self._process = self._process, None
        if process is None:
            return ""
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.5)
        process.kill()
        process.communicate()
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").splitlines()
        self._log.truncate(0)
        return "\n".join([f"status {process.returncode}", *lines[-20:]])


def serve(target: Target) -> None:
    """The loop of a worker: reads files from standard input and writes their outcomes."""
    faulthandler.enable()
    outcomes = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # the output of libraries is not an outcome
    while head := sys.stdin.buffer.read(8):
        data = sys.stdin.buffer.read(int.from_bytes(head, "little"))
        print(json.dumps(asdict(measure(target, data))), file=outcomes, flush=True)


def measure(target: Target, data: bytes) -> Outcome:
    """Tries one file in this process."""
    accepted, message, crash = False, "", ""
    before = start_watching()
    start = time.process_time()
    try:
        target.attempt(data)
        accepted = True
    except Error as error:
        message = str(error)
    except BaseException:
        crash = "raised\n" + traceback.format_exc()
    seconds = time.process_time() - start
    return Outcome(accepted, message[-1000:], seconds, peak_memory() - before, crash)


def start_watching() -> int:
    """Bytes of memory in use; `peak_memory` starts from here."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def peak_memory() -> int:
    """The most bytes of memory in use since `start_watching`."""
    return _status("VmHWM")


def _status(field: str) -> int:
    (line,) = (x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(field))
    return int(line.split()[1]) * 1024
