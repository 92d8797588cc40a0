#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds the library, the tools and the tests with each of the given compilers of Debian, warnings
# being errors, and runs the C++ tests:
#
#   toolchains/build_with.sh g++-14 clang++-19
set -euo pipefail
cd "$(dirname "$0")/.."

packages=(cmake ninja-build python3-pip doctest-dev)  # pip fetches nlohmann-json
for compiler; do packages+=("${compiler/clang++/clang}"); done
toolchains/install_packages.sh "${packages[@]}"
for compiler; do
  echo "--- $compiler"
  cmake --preset host -B "build/$compiler" -D CMAKE_CXX_COMPILER="$compiler" -D QPP_WERROR=ON
  cmake --build "build/$compiler"
  "build/$compiler/test_cpp"
  rm -r "build/$compiler"
done
