# SPDX-License-Identifier: Apache-2.0
# Copies the project without the vector kernels to FOLDER, builds the reference kernels there and
# checks them. GENERATOR, COMPILER and JSON (the folder of nlohmann/json.hpp) are those of the build
# that calls this. The code above the kernels reaches them through
# variants.inc only, which tests/python/test_codebase.py checks.
set(copy ${FOLDER}/source)
file(REMOVE_RECURSE ${copy})
foreach(entry CMakeLists.txt pyproject.toml cmake cpp include tests/cpp tests/kernels)
  cmake_path(GET entry PARENT_PATH parent)
  file(COPY ${SOURCE}/${entry} DESTINATION ${copy}/${parent})
endforeach()
file(REMOVE_RECURSE ${copy}/cpp/kernels/neon ${copy}/cpp/kernels/x86)

set(options -G ${GENERATOR} -D QPP_TESTS=ON -D CMAKE_BUILD_TYPE=Debug -D CMAKE_CXX_FLAGS_DEBUG=-O1
    -D CMAKE_CXX_COMPILER=${COMPILER} -D nlohmann_json_INCLUDE_DIR=${JSON})
set(build ${FOLDER}/build)
foreach(command "${CMAKE_COMMAND};-S;${copy};-B;${build};${options}"
                "${CMAKE_COMMAND};--build;${build};--target;checkkernels"
                "${build}/checkkernels")
  execute_process(COMMAND ${command} OUTPUT_VARIABLE output ERROR_VARIABLE output
                  RESULT_VARIABLE result)
  if(result)
    message(FATAL_ERROR "${command}: ${result}\n${output}")
  endif()
endforeach()
if(output MATCHES "_(neon|x86)" OR NOT output MATCHES "[1-9][0-9]* kernels, 0 failed, 0 not on")
  message(FATAL_ERROR "expected the reference kernels only:\n${output}")
endif()
