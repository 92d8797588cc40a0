# SPDX-License-Identifier: Apache-2.0
# Installs the library of the build in FOLDER, builds EXAMPLES against it as a user would, and runs
# them on the file that WRITE_MODEL writes. EMULATOR runs programs of a cross build.
set(prefix ${FOLDER}/check_install/prefix)
set(build ${FOLDER}/check_install/build)
set(model ${FOLDER}/check_install/small.qpp)
file(REMOVE_RECURSE ${FOLDER}/check_install)
file(MAKE_DIRECTORY ${FOLDER}/check_install)

macro(run)
  execute_process(COMMAND ${ARGN} OUTPUT_VARIABLE output ERROR_VARIABLE error RESULT_VARIABLE result)
endmacro()
macro(run_or_fail)
  run(${ARGN})
  if(result)
    message(FATAL_ERROR "${ARGN}: ${result}\n${output}${error}")
  endif()
endmacro()

run_or_fail(${EMULATOR} ${WRITE_MODEL} ${model})
run_or_fail(${CMAKE_COMMAND} --install ${FOLDER} --component library --prefix ${prefix})
file(GLOB_RECURSE headers RELATIVE ${prefix}/include ${prefix}/include/*)
if(NOT "${headers}" STREQUAL "qppengine/qppengine.h;qppengine/qppengine.hpp")
  message(FATAL_ERROR "expected the two public headers to be installed, got ${headers}")
endif()

# The folder itself rather than CMAKE_PREFIX_PATH, which a cross build's toolchain file overrules.
file(GLOB_RECURSE config ${prefix}/qppengine-config.cmake)
cmake_path(GET config PARENT_PATH package)
set(options -G ${GENERATOR} -D qppengine_DIR=${package}
    "-D CMAKE_C_FLAGS=-std=c99 -pedantic -Wall -Wextra -Werror"
    "-D CMAKE_CXX_FLAGS=-pedantic -Wall -Wextra -Werror")
if(TOOLCHAIN)  # a preset may give it as seen from the project
  cmake_path(ABSOLUTE_PATH TOOLCHAIN BASE_DIRECTORY ${CMAKE_CURRENT_LIST_DIR}/..)
  list(APPEND options -D CMAKE_TOOLCHAIN_FILE=${TOOLCHAIN})
else()
  list(APPEND options -D CMAKE_CXX_COMPILER=${COMPILER})
endif()
run_or_fail(${CMAKE_COMMAND} -S ${EXAMPLES} -B ${build} ${options})
run_or_fail(${CMAKE_COMMAND} --build ${build})

foreach(example run_c run_cpp)
  run_or_fail(${EMULATOR} ${build}/${example} ${model})
  if(NOT output MATCHES "^y: -?[0-9.e-]+\n$")
    message(FATAL_ERROR "${example}: expected the first element of output y, got ${output}")
  endif()
  list(APPEND outputs ${output})
  run(${EMULATOR} ${build}/${example} ${EXAMPLES}/CMakeLists.txt)
  if(NOT result EQUAL 2 OR NOT error MATCHES "CMakeLists.txt")
    message(FATAL_ERROR "${example}: expected the error of no model file, got ${result}: ${error}")
  endif()
endforeach()
list(REMOVE_DUPLICATES outputs)
list(LENGTH outputs different)
if(different GREATER 1)
  message(FATAL_ERROR "expected C and C++ to agree, got ${outputs}")
endif()
