# SPDX-License-Identifier: Apache-2.0
# Cross build for 64-bit Arm Linux with the distribution's GCC; tests run under QEMU.
#
#   apt-get install g++-aarch64-linux-gnu qemu-user
#   cmake --workflow --preset aarch64
#   qemu-aarch64 -cpu cortex-a76 build/aarch64/qpp_bench ...
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)

find_program(QPP_AARCH64_GXX aarch64-linux-gnu-g++ DOC "GCC's cross compiler")
if(NOT QPP_AARCH64_GXX)
  message(FATAL_ERROR "aarch64-linux-gnu-g++ is missing. Install GCC's cross compiler (Debian, "
    "Ubuntu: apt-get install g++-aarch64-linux-gnu), or run `make board`, which does.")
endif()
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_CXX_COMPILER ${QPP_AARCH64_GXX})

# Programs carry their C library with them: they run on any aarch64 Linux (a phone, QEMU).
set(CMAKE_EXE_LINKER_FLAGS_INIT -static)

# QEMU takes the emulated CPU from its option -cpu or from the variable QEMU_CPU.
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64)

set(CMAKE_FIND_ROOT_PATH /usr/aarch64-linux-gnu)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)
