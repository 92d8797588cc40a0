# SPDX-License-Identifier: Apache-2.0

# qpp_header_library(<name> <header>): an interface library for a header-only dependency.
#
# Such headers are the same for every architecture, so a cross build may use the host's. It must
# not see the rest of the host's /usr/include, though: the one folder is reached through a link.
function(qpp_header_library name header)
  find_path(${name}_INCLUDE_DIR ${header} PATH_SUFFIXES ${name}/include REQUIRED
            NO_CMAKE_FIND_ROOT_PATH)
  get_filename_component(folder ${header} DIRECTORY)
  set(links ${CMAKE_BINARY_DIR}/headers/${name})
  file(MAKE_DIRECTORY ${links})
  file(CREATE_LINK ${${name}_INCLUDE_DIR}/${folder} ${links}/${folder} SYMBOLIC)
  add_library(${name} INTERFACE)
  target_include_directories(${name} SYSTEM INTERFACE ${links})
endfunction()

# qpp_target(<target>): warnings and sanitizers, for every target of ours.
function(qpp_target target)
  target_compile_options(${target} PRIVATE
    -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wno-sign-conversion
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
  target_link_libraries(${target} PRIVATE qppengine_core)
  if(CMAKE_CROSSCOMPILING_EMULATOR)
    foreach(cpu IN LISTS QPP_EMULATED_CPUS)
      add_test(NAME ${target}.${cpu} COMMAND ${target})
      set_property(TEST ${target}.${cpu} PROPERTY ENVIRONMENT QEMU_CPU=${cpu})
    endforeach()
  else()
    add_test(NAME ${target} COMMAND ${target})
  endif()
endfunction()
