# SPDX-License-Identifier: Apache-2.0
# The same cross build with Clang, on the C library and the linker of GCC's packages. Tested with
# Clang 19; -D QPP_CLANG=clang++-N takes another.
#
#   apt-get install clang-19 g++-aarch64-linux-gnu qemu-user
#   cmake --workflow --preset aarch64-clang
include(${CMAKE_CURRENT_LIST_DIR}/aarch64-linux-gnu.cmake)

find_program(QPP_CLANG NAMES clang++-19 clang++ DOC "Clang's C++ compiler" REQUIRED)
list(APPEND CMAKE_TRY_COMPILE_PLATFORM_VARIABLES QPP_CLANG)
string(REPLACE "clang++" "clang" CMAKE_C_COMPILER "${QPP_CLANG}")
set(CMAKE_CXX_COMPILER ${QPP_CLANG})
set(CMAKE_C_COMPILER_TARGET aarch64-linux-gnu)
set(CMAKE_CXX_COMPILER_TARGET aarch64-linux-gnu)
set(CMAKE_ASM_COMPILER_TARGET aarch64-linux-gnu)
