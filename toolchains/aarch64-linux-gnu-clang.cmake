# SPDX-License-Identifier: Apache-2.0
# Cross build for 64-bit Arm Linux with Clang, and the distribution's GCC libraries and linker.
#
#   apt-get install clang g++-aarch64-linux-gnu qemu-user
#   cmake --workflow --preset aarch64-clang
include(${CMAKE_CURRENT_LIST_DIR}/aarch64-linux-gnu.cmake)

find_program(QPP_CLANG NAMES clang++ clang++-21 clang++-20 clang++-19 clang++-18 clang++-17 REQUIRED)
set(CMAKE_CXX_COMPILER ${QPP_CLANG})
set(CMAKE_CXX_COMPILER_TARGET aarch64-linux-gnu)
