# SPDX-License-Identifier: Apache-2.0
# Cross build for 64-bit Arm Linux with the distribution's GCC; tests run under QEMU.
#
#   apt-get install g++-aarch64-linux-gnu qemu-user
#   cmake --workflow --preset aarch64
#   qemu-aarch64 -cpu cortex-a76 build/aarch64/qpp_bench ...
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)

set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)

# Programs carry their C library with them: they run on any aarch64 Linux (a phone, QEMU).
set(CMAKE_EXE_LINKER_FLAGS_INIT -static)

# QEMU takes the emulated CPU from its option -cpu or from the variable QEMU_CPU.
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64)

set(CMAKE_FIND_ROOT_PATH /usr/aarch64-linux-gnu)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)
