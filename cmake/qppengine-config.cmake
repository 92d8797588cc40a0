# SPDX-License-Identifier: Apache-2.0
# find_package(qppengine CONFIG) gives the target qppengine::qppengine.
include(CMakeFindDependencyMacro)
find_dependency(Threads)
include(${CMAKE_CURRENT_LIST_DIR}/qppengine-targets.cmake)
