# SPDX-License-Identifier: Apache-2.0
# cmake -D NM=nm -D "OBJECTS=a.o;b.o" -P check_isa.cmake: fails if an object holds code to share.
#
# Of an inline function that several objects hold, the linker keeps any one. If that came from a
# file compiled for an extension, a CPU without it would meet it anywhere in the engine.
foreach(object IN LISTS OBJECTS)
  execute_process(COMMAND ${NM} --defined-only --demangle ${object}
                  OUTPUT_VARIABLE symbols COMMAND_ERROR_IS_FATAL ANY)
  string(REGEX MATCHALL "[^\n]* [WVu] [^\n]*" shared "${symbols}")
  foreach(symbol IN LISTS shared)
    message(SEND_ERROR "${object} shares ${symbol}: give it internal linkage or force it inline")
  endforeach()
endforeach()
