# SPDX-License-Identifier: Apache-2.0
"""Sessions in forked children, in threads that outlive the interpreter, and under signals.

Each test is a process of its own: a hang ends with its time-out, a crash is an exit status.
"""

from __future__ import annotations

import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

PREPARE = """
import os, pathlib, resource, signal, sys, threading, time
import numpy as np
import qppengine as qe

# Jobs in the background of a shell start with this signal ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
path, threads = sys.argv[1], int(sys.argv[2])
x = np.random.default_rng(3).random((1, 3, 32, 40), np.float32)

def in_child(call):
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        os._exit(0 if call() else 1)
    assert os.waitpid(child, 0)[1] == 0
    return True
"""


def run_script(script: str, model: Path, threads: int) -> str:
    """The output of the script, which must succeed, with an empty standard error."""
    # Python 3.12 and newer warn of forks of a process with threads, which are meant here.
    flags = ["-W", "error", "-W", "ignore:This process:DeprecationWarning"]
    result = subprocess.run(
        [sys.executable, *flags, "-c", PREPARE + textwrap.dedent(script), model, str(threads)],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("scheme", ["dynamic", "qpp"])
def test_forked_children_run_a_session_of_their_parent(
    model: Path, threads: int, scheme: str
) -> None:
    script = f"""
    session = qe.Session(path, {scheme!r}, threads=threads)
    other = qe.Session(path, {scheme!r}, threads=threads)
    in_child(lambda: session.run(x) is not None)  # not run yet
    expected = session.run(x)
    same = lambda: np.array_equal(session.run(x), expected)
    in_child(same)
    in_child(lambda: same() and in_child(same))
    def delete():
        global session, other
        session.run(x)
        del session, other
        return True
    in_child(delete)
    assert same()
    """
    run_script(script, model, threads)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_fork_while_another_thread_runs_the_session(model: Path, threads: int) -> None:
    script = """
    session = qe.Session(path, "qpp", threads=threads)
    expected = session.run(x)
    stop = threading.Event()
    def loop():
        while not stop.is_set():
            session.run(x)
    thread = threading.Thread(target=loop)
    thread.start()
    for _ in range(10):
        in_child(lambda: np.array_equal(session.run(x), expected))
    stop.set()
    thread.join()
    assert np.array_equal(session.run(x), expected)
    """
    run_script(script, model, threads)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_daemon_thread_runs_the_session_when_python_exits(model: Path, threads: int) -> None:
    script = """
    session = qe.Session(path, "qpp", threads=threads)
    def loop():
        while True:
            session.run(x)
    for _ in range(3):  # of which two wait for the session
        threading.Thread(target=loop, daemon=True).start()
    while session.stats()["runs"] < 10:
        time.sleep(0.01)
    """
    for _ in range(3):
        run_script(script, model, threads)


def test_threads_that_cannot_be_started_are_reported(model: Path) -> None:
    script = """
    data = pathlib.Path(path).read_bytes()
    qe.Session(data, "fp16")
    used = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (100 << 20),) * 2)
    try:
        qe.Session(data, "fp16", threads=threads)
    except qe.Error as error:
        print(error)
    assert qe.Session(data, "fp16", threads=1).run(x) is not None
    """
    message = run_script(script, model, 200)
    assert message.startswith("threads: expected 200, the system started ")
    assert "ask for fewer" in message


LONG_RUN = """
session = qe.Session(path, "qpp", threads=threads)
session.run(x)
long = np.ones((1, 3, 2048, 1024), np.float32)  # takes a second
into = np.empty((1, 2, 2048, 2048), np.float32)
runs = session.stats()["runs"]
"""


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    "call", ["run(long)", "run(long, out=into)", "observe(long)", "profile(long, runs=100)"]
)
def test_an_interrupt_ends_a_run(model: Path, threads: int, call: str) -> None:
    script = f"""
    threading.Timer(0.1, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    try:
        session.{call}
    except KeyboardInterrupt:
        print("interrupted")
    assert session.stats()["runs"] == runs  # the run was not finished first
    expected = qe.Session(path, "qpp").run(x)
    assert np.array_equal(session.run(x), expected)
    """
    assert run_script(LONG_RUN + textwrap.dedent(script), model, threads) == "interrupted\n"


def test_an_interrupt_ends_the_wait_for_another_threads_run(model: Path) -> None:
    script = """
    thread = threading.Thread(target=lambda: session.profile(long, runs=3), daemon=True)
    thread.start()
    time.sleep(0.1)
    threading.Timer(0.1, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    try:
        session.run(x)
    except KeyboardInterrupt:
        print("interrupted")
    """
    assert run_script(LONG_RUN + textwrap.dedent(script), model, 1) == "interrupted\n"


def test_a_signal_handler_runs_during_a_run_and_may_not_run_the_session(model: Path) -> None:
    script = """
    expected = session.run(long)
    def handler(*_):
        try:
            session.run(x)
        except qe.Error as error:
            print(error)
    signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    assert np.array_equal(session.run(long), expected)
    """
    message = run_script(LONG_RUN + textwrap.dedent(script), model, 1)
    assert message.startswith("expected no call to a session from within another call to it")
