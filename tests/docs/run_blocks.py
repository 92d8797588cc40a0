# SPDX-License-Identifier: Apache-2.0
"""Runs the code blocks of README.md as they are written, in a clean clone on a bare machine.

    make test-versions    # in bare roots of Debian, among other things

Needs only Python: blocks install their other requirements, or blocks before them do. Stand-ins
replace programs that CI does not have: `ssh board` runs a command under QEMU in the folder
`board`, once instead of 100 times; `scp` copies there; `sudo` runs commands as they are.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import textwrap
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
STAND_INS = {
    "sudo": 'exec "$@"',
    "scp": 'mkdir -p board && exec cp "${@:1:$#-1}" board/',
    "ssh": 'cd board && shift && exec qemu-aarch64 -cpu cortex-a76 "${@/#100/1}"',
}
# What a user brings for the blocks in Python and of commands: a network, photographs, an input.
MATERIAL = """
import shutil
from pathlib import Path
import numpy as np
import qppengine.models
from qppengine import photos
folder = Path(qppengine.models.__file__).parent
# The steps are those of any network; exporting a ResNet would take PyTorch.
for name in ("espcn", "resnet18"):
    shutil.copy(folder / "espcn_x3.pt2", f"{name}.pt2")
samples = list(photos.calibration_samples(3, count=20))
Path("samples").mkdir(exist_ok=True)
for index, sample in enumerate(samples):
    np.save(f"samples/{index}.npy", sample)
x = samples[0]
np.save("x.npy", x)
"""


class Block(NamedTuple):
    """A block of code in a document, below a heading."""

    heading: str
    language: str
    text: str


def find_blocks(document: str) -> list[Block]:
    """All blocks between fences, in order."""
    blocks, heading = [], ""
    pattern = r"^#+ (?P<heading>[^\n]*)$|^```(?P<language>\w*)\n(?P<text>.*?)^```$"
    for match in re.finditer(pattern, document, re.MULTILINE | re.DOTALL):
        if match["heading"] is not None:
            heading = match["heading"]
        else:
            blocks.append(Block(heading, match["language"], match["text"]))
    return blocks


def run_shell(text: str) -> None:
    """Runs commands as typed in the project's folder, up to the first that fails."""
    print(textwrap.indent(text, "  $ "), flush=True)
    path = f"{ROOT / 'build' / 'stand-ins'}:{ROOT / '.venv' / 'bin'}:{os.environ['PATH']}"
    command = ["bash", "-euo", "pipefail", "-c", text]
    subprocess.run(command, cwd=ROOT, env=os.environ | {"PATH": path}, check=True)


def run_demo(text: str) -> None:
    """`make demo` prints the table of the README; `make test` has a run of its own."""
    demo, test = text.splitlines()
    assert demo.startswith("make demo ")
    assert test.startswith("make test ")
    run_shell("make demo | tee build/demo.txt")
    printed = (ROOT / "build" / "demo.txt").read_text()
    compare_tables((ROOT / "README.md").read_text(), printed)


def compare_tables(document: str, printed: str) -> None:
    """Every row of the document's table is printed, with numbers within 0.1 dB."""
    table = document.partition("| type | scheme |")[2].partition("\n\n")[0]
    rows = [[cell.strip(" *") for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:]]
    assert len(rows) == 13
    for kind, scheme, *expected in rows:
        pattern = rf"^.*\b{kind}\b.*\b{re.escape(scheme)}\b(?P<numbers>.*)$"
        line = re.search(pattern, printed, re.MULTILINE)
        assert line, f"{kind} {scheme}: no such line"
        got = re.findall(r"\d+\.\d+", line["numbers"])
        for a, b in zip(filter(None, expected), got, strict=False):
            assert abs(float(a) - float(b)) <= 0.1, f"{kind} {scheme}: expected {a} dB, got {b}"


def run_python(text: str) -> None:
    """The lines in Python, after those that create their inputs."""
    run_shell(f".venv/bin/python - << 'END'\n{MATERIAL}{text}END")


def run_commands(text: str) -> None:
    """The command line; `inspect --onnx` needs an extra."""
    run_shell(f".venv/bin/pip install --quiet --no-build-isolation '.[onnx]'\n{text}")


def run_on_board(text: str) -> None:
    """The commands for a board, with programs that replace it."""
    run_shell(f"toolchains/install_packages.sh qemu-user\n{text}")


def run_cpp(text: str) -> None:
    """The lines in C++, against the installed library."""
    source = "#include <qppengine/qppengine.hpp>\n\n#include <vector>\n\nint main() {\n"
    body = "".join(line for line in text.splitlines(True) if not line.startswith("#include"))
    (ROOT / "build" / "readme.cpp").write_text(f"{source}{body}return outputs.empty();\n}}\n")
    run_shell(
        "g++ -std=c++20 build/readme.cpp -o build/readme -lqppengine -pthread && ./build/readme"
    )


def pass_over(text: str) -> None:
    """Not code."""


# How the blocks below each heading are run, in order. A heading or a block more is an error.
README = {
    "Two commands": [run_demo],
    "Ten lines of Python": [run_python, run_commands],
    "On a phone or a board": [run_on_board],
    "From C++ and C": [run_shell, run_cpp],
    "How it is built": [pass_over],
}


def main() -> None:
    """Runs every block."""
    folder = ROOT / "build" / "stand-ins"
    folder.mkdir(parents=True)
    for name, command in STAND_INS.items():
        (folder / name).write_text(f"#!/bin/bash\n{command}\n")
        (folder / name).chmod(0o755)
    runners = {heading: list(functions) for heading, functions in README.items()}
    for block in find_blocks((ROOT / "README.md").read_text()):
        print(f"--- {block.heading}", flush=True)
        runners[block.heading].pop(0)(block.text)
    assert not any(runners.values()), runners
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
