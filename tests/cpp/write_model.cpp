// SPDX-License-Identifier: Apache-2.0
//
// Writes the small network of the tests to a file, for tests of whole programs.

#include <exception>
#include <fstream>
#include <iostream>

#include "support.h"

int main(int argc, char** argv) try {  // NOLINT(misc-const-correctness): as everywhere
  if (argc != 2) return 2;
  const std::vector<std::byte> bytes = qpp::test::small_network().bytes();
  std::ofstream file(argv[1], std::ios::binary);
  file.write(reinterpret_cast<const char*>(bytes.data()),
             static_cast<std::streamsize>(bytes.size()));
  return file.flush() ? 0 : 1;
} catch (const std::exception& error) {
  std::cerr << error.what() << '\n';
  return 1;
}
