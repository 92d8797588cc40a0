# SPDX-License-Identifier: Apache-2.0

# qpp_header_library(<name> <header> [<requirement>]): an interface library for a header-only
# dependency: the copy in the project's .venv or one of the system. Failing both, pip fetches the
# package index's <requirement>, of the version that pyproject.toml pins. Sets <name>_FOUND.
#
# Such headers are the same for every architecture, so a cross build may use the host's. It must
# not see the rest of the host's /usr/include, though: the one folder is reached through a link.
function(qpp_header_library name header)
  set(fetched ${CMAKE_BINARY_DIR}/fetched)
  set(search NAMES ${header} PATH_SUFFIXES ${name}/include NO_CMAKE_FIND_ROOT_PATH
      HINTS ${CMAKE_CURRENT_SOURCE_DIR}/.venv/site-packages PATHS ${fetched})
  find_path(${name}_INCLUDE_DIR ${search})
  if(ARGC GREATER 2 AND NOT ${name}_INCLUDE_DIR)
    qpp_fetch(${ARGV2} ${fetched})
    find_path(${name}_INCLUDE_DIR ${search})
  endif()
  set(${name}_FOUND ${${name}_INCLUDE_DIR} PARENT_SCOPE)
  if(NOT ${name}_INCLUDE_DIR)
    return()
  endif()
  get_filename_component(folder ${header} DIRECTORY)
  set(links ${CMAKE_BINARY_DIR}/headers/${name})
  file(MAKE_DIRECTORY ${links})
  file(CREATE_LINK ${${name}_INCLUDE_DIR}/${folder} ${links}/${folder} SYMBOLIC)
  add_library(${name} INTERFACE)
  target_include_directories(${name} SYSTEM INTERFACE ${links})
endfunction()

# qpp_fetch(<package> <folder>): the version of a Python package that pyproject.toml pins.
function(qpp_fetch package folder)
  file(STRINGS ${CMAKE_CURRENT_SOURCE_DIR}/pyproject.toml requirement REGEX "\"${package}==")
  string(REGEX REPLACE ".*\"(${package}==[^\"]*)\".*" "\\1" requirement "${requirement}")
  message(STATUS "Fetching ${requirement} with pip")
  find_program(QPP_PYTHON3 python3 NO_CMAKE_FIND_ROOT_PATH DOC "Python that fetches packages")
  execute_process(COMMAND ${QPP_PYTHON3} -m pip install --quiet --no-deps --target ${folder}
                          ${requirement}
                  RESULT_VARIABLE result ERROR_VARIABLE error)
  if(NOT result EQUAL 0)
    message(STATUS "pip failed: ${error}")
  endif()
endfunction()

# qpp_target(<target>): warnings and sanitizers, for every target of ours.
function(qpp_target target)
  target_compile_options(${target} PRIVATE
    $<$<COMPILE_LANGUAGE:CXX>:-Wall;-Wextra;-Wpedantic;-Wshadow;-Wconversion;-Wno-sign-conversion>
    $<$<BOOL:${QPP_WERROR}>:-Werror>)
  if(QPP_SANITIZE)
    target_compile_options(${target} PRIVATE
      -fsanitize=${QPP_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
    target_link_options(${target} PRIVATE -fsanitize=${QPP_SANITIZE})
  endif()
endfunction()

# qpp_source_options(<option> <file>...): one more compile option for the given source files.
function(qpp_source_options option)
  if(ARGN)
    set_property(SOURCE ${ARGN} APPEND PROPERTY COMPILE_OPTIONS ${option})
  endif()
endfunction()

# qpp_test(<target>): registers a test program; a cross build runs it once per emulated CPU.
function(qpp_test target)
  qpp_target(${target})
  if(CMAKE_CROSSCOMPILING_EMULATOR)
    foreach(cpu IN LISTS QPP_EMULATED_CPUS)
      add_test(NAME ${target}.${cpu} COMMAND ${target})
      set_property(TEST ${target}.${cpu} PROPERTY ENVIRONMENT QEMU_CPU=${cpu})
    endforeach()
  else()
    add_test(NAME ${target} COMMAND ${target})
  endif()
endfunction()
