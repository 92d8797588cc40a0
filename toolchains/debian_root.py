# SPDX-License-Identifier: Apache-2.0
"""Runs a command in a bare Debian with python3, g++, git, make and a clean clone of this project.

    sudo .venv/bin/python toolchains/debian_root.py trixie make demo

The command runs in a clone of the last commit, as root. Its files are removed with the root.
Packages come from the sources of this machine's apt and pip: their mirrors, proxies and
certificates are passed on, and pip's cache is shared. On systems other than Debian,
QPP_DEBIAN_MIRROR is the URL of a mirror.
"""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

PROJECT = Path(__file__).resolve().parents[1]
ROOTS = PROJECT / "build" / "roots"
# Where a root sees files of this machine: apart from those that its packages install.
HOST = "/host"
PACKAGES = ("python3", "g++", "git", "make")
PASSED_ON = ("CI", "CMAKE_BUILD_PARALLEL_LEVEL", "OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")


def main(suite: str, *command: str) -> None:
    """Runs `command` in the Debian release `suite`, such as bookworm, and exits with its status."""
    if os.geteuid() != 0:
        sys.exit("a root of Debian can only be made by root: use sudo")
    if not shutil.which("mmdebstrap"):
        sys.exit("mmdebstrap is missing: apt-get install mmdebstrap")
    if subprocess.run(["unshare", "--mount", "true"], check=False).returncode:
        sys.exit("this machine allows no mounts (is it a restricted container?)")
    archive = make_archive(suite)
    with tempfile.TemporaryDirectory(dir=ROOTS, prefix=f"{suite}-") as folder:
        root = Path(folder)
        subprocess.run(["tar", "-xf", archive, "-C", root], check=True)
        home = root / "root" / "qppengine"
        # With sudo, the project belongs to another user than root.
        settings = root / "root" / ".gitconfig"
        settings.write_text("[safe]\ndirectory = *\n[advice]\ndetachedHead = false\n")
        subprocess.run(
            ["git", "clone", "--quiet", PROJECT, home],
            env=os.environ | {"GIT_CONFIG_GLOBAL": str(settings)},
            check=True,
        )
        shutil.copy("/etc/resolv.conf", root / "etc" / "resolv.conf")
        (root / "etc" / "apt" / "apt.conf.d" / "90host").write_text(apt_configuration())
        environment = pip_environment() | {
            name: os.environ[name] for name in PASSED_ON if name in os.environ
        }
        sys.exit(run(root, environment, command))


def make_archive(suite: str) -> Path:
    """A tar archive of the bare root, made once."""
    archive = ROOTS / f"{suite}.tar"
    if not archive.exists():
        print(f"Making a root of Debian {suite}", flush=True)
        ROOTS.mkdir(parents=True, exist_ok=True)
        unfinished = archive.with_suffix(".unfinished.tar")
        options = ["--quiet", "--variant=apt", f"--include={','.join(PACKAGES)}"]
        subprocess.run(["mmdebstrap", *options, suite, unfinished, debian_mirror()], check=True)
        unfinished.rename(archive)
    return archive


def debian_mirror() -> str:
    """The one that this machine's apt uses."""
    if mirror := os.environ.get("QPP_DEBIAN_MIRROR"):
        return mirror
    command = ["apt-get", "indextargets", "--format", "$(SITE)", "Created-By: Packages"]
    sites = output([*command, "Label: Debian"]).split() or output(command).split()
    mirrors = [site for site in sites if site.rstrip("/").endswith("/debian")]
    if not mirrors:
        sys.exit("apt has no mirror of Debian here: set QPP_DEBIAN_MIRROR")
    return mirrors[0]


def apt_configuration() -> str:
    """How this machine's apt downloads: proxies, certificates, checks."""
    settings = output(["apt-config", "dump", "--no-empty", "Acquire"]).splitlines()
    return "".join(f"{setting}\n" for setting in settings if "IndexTargets" not in setting)


def pip_environment() -> dict[str, str]:
    """The configuration of this machine's pip, from its files and variables, as variables."""
    environment = {}
    for line in output([sys.executable, "-m", "pip", "config", "list"]).splitlines():
        key, _, value = line.partition("=")
        option = key.rpartition(".")[2].upper().replace("-", "_")
        environment[f"PIP_{option}"] = ast.literal_eval(value)
    return environment


def run(root: Path, environment: dict[str, str], command: Sequence[str]) -> int:
    """Runs a command in the root, in a mount namespace of its own; returns its exit status."""
    cache = Path(output([sys.executable, "-m", "pip", "cache", "dir"]).strip())
    cache.mkdir(parents=True, exist_ok=True)
    binds = [("/dev", "/dev"), (str(cache), "/root/.cache/pip")]
    variables = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root",
        "LANG": "C.UTF-8",
    }
    for name, value in environment.items():
        words = value.split()
        for i, word in enumerate(words):  # local indexes, wheels, constraints, certificates
            path = Path(word.removeprefix("file://"))
            if path.is_absolute() and path.exists():
                # An index refers to files next to its folder.
                place = path.parent if path.is_dir() and path.parent != Path("/") else path
                binds.append((str(place), f"{HOST}{place}"))
                words[i] = word.replace(str(path), f"{HOST}{path}")
        variables[name] = " ".join(words)
    script = [f"mount -t proc proc {root}/proc"]
    for source, target in dict.fromkeys(binds):
        inside = root / target.lstrip("/")
        if Path(source).is_dir():
            inside.mkdir(parents=True, exist_ok=True)
        else:
            inside.parent.mkdir(parents=True, exist_ok=True)
            inside.touch()
        script.append(f"mount --rbind {source} {inside}")
    script.append(f'exec chroot {root} env --chdir=/root/qppengine "$@"')
    return subprocess.run(
        ["unshare", "--mount", "bash", "-euc", "\n".join(script), "bash", *command],
        env=variables,
        check=False,
    ).returncode


def output(command: list[str]) -> str:
    """What a command prints."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(f"usage: {sys.argv[0]} SUITE COMMAND...")
    main(*sys.argv[1:])
