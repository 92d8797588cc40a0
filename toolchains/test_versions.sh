#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs the Python tests with the oldest or the newest versions of packages that pyproject.toml
# allows, on the system's Python and compiler. Without PyTorch, of which one version is supported:
# `make test` has it, and for some versions of Python the package index offers nothing but builds
# for GPUs, of several GB.
#
#   toolchains/test_versions.sh oldest [PYTEST_ARGUMENT...]
set -euo pipefail
cd "$(dirname "$0")/.."
age=$1
shift

make --silent .venv/.created
if [[ $age == oldest ]]; then
  # A list of files, like that of pip's own configuration.
  export PIP_CONSTRAINT="${PIP_CONSTRAINT:-} $PWD/build/oldest.txt"
  mkdir -p build
  .venv/bin/python - > build/oldest.txt << 'END'
import re, tomllib
with open("pyproject.toml", "rb") as file:
    document = tomllib.load(file)
project = document["project"]
requirements = [*document["build-system"]["requires"], *project["dependencies"]]
for extra in project["optional-dependencies"].values():
    requirements += extra
for requirement in requirements:
    if match := re.match(r"([\w-]+)>=([\d.]+)", requirement):
        print(f"{match[1]}=={match[2]}")
END
fi
make --silent .venv/.build
.venv/bin/pip install --quiet --no-build-isolation --editable '.[bench,demo]' \
  pytest pytest-benchmark pytest-xdist hypothesis
.venv/bin/python --version
.venv/bin/pip list | grep --ignore-case --extended-regexp \
  '^(numpy|scipy|scikit-(learn|image)|safetensors|matplotlib|pillow|onnx|pybind11|click|pytest) '
mapfile -t torch < <(grep --files-with-matches --extended-regexp \
  '^(import torch|(torch = )?pytest\.importorskip\("torch")' --recursive tests/python)
torch+=(tests/python/device)  # whose models come from PyTorch
echo "Left out, since they need PyTorch: ${torch[*]#tests/python/}"
.venv/bin/pytest -n "$(nproc)" --dist loadscope "${torch[@]/#/--ignore=}" "$@"
