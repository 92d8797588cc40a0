# SPDX-License-Identifier: Apache-2.0
"""Runs clang-tidy on the C++ sources in parallel, skipping those already found clean.

    python toolchains/clang_tidy.py build/host [build/aarch64 ...]

Takes the sources from the compile_commands.json of each given build folder, which needs to be
configured only; a source of several builds is checked in the first. The name of a clean source's
stamp is a hash of all that the result depends on: the source, its headers, its command, the checks.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STAMPS = ROOT / "build" / "clang-tidy"


def find_includes(source: Path, found: set[Path]) -> set[Path]:
    """Adds to `found` the source and all files of this repository that it includes."""
    found.add(source)
    for name in re.findall(r'^ *#include "(.+)"', source.read_text(), re.MULTILINE):
        for path in (ROOT / "cpp" / name, ROOT / "include" / name, source.parent / name):
            if path.exists() and path not in found:
                find_includes(path, found)
    return found


def find_unchecked(builds: list[Path]) -> dict[Path, tuple[Path, Path]]:
    """Maps each source that has no valid stamp to its build folder and its future stamp."""
    version = subprocess.run(["clang-tidy", "--version"], check=True, capture_output=True).stdout
    checks = version + (ROOT / ".clang-tidy").read_bytes()
    seen: set[Path] = set()
    unchecked: dict[Path, tuple[Path, Path]] = {}
    for build in builds:
        for entry in json.loads((build / "compile_commands.json").read_text()):
            source = Path(entry["file"])
            if source in seen or source.suffix == ".S":  # assembly
                continue
            seen.add(source)
            digest = hashlib.sha256(checks + entry["command"].encode())
            for path in sorted(find_includes(source, set())):
                digest.update(path.read_bytes())
            stamp = STAMPS / digest.hexdigest()
            if not stamp.exists():
                unchecked[source] = (build, stamp)
    return unchecked


def check(source: Path, build: Path, stamp: Path) -> bool:
    """Checks one source; prints the findings of clang-tidy."""
    result = subprocess.run(
        ["clang-tidy", "--quiet", "-p", build, source], capture_output=True, text=True
    )
    if result.returncode == 0:
        stamp.touch()
        return True
    print(result.stdout or result.stderr, flush=True)
    return False


def main() -> int:
    """Returns the exit code."""
    STAMPS.mkdir(parents=True, exist_ok=True)
    unchecked = find_unchecked([Path(build).resolve() for build in sys.argv[1:]])
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        clean = pool.map(lambda item: check(item[0], *item[1]), unchecked.items())
        return 0 if all(list(clean)) else 1


if __name__ == "__main__":
    sys.exit(main())
