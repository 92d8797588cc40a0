// SPDX-License-Identifier: Apache-2.0
// Runs a model of one gray image on 16x24 zeros: run_cpp espcn.qpp
#include <iostream>
#include <qppengine/qppengine.hpp>

int main(int count, char** arguments) try {
  qppengine::Session session(count > 1 ? arguments[1] : "", {"qpp"});
  const qppengine::Shape shape{1, 1, 16, 24};
  const qppengine::Tensor image{shape, std::vector<float>(qppengine::element_count(shape))};
  const std::vector<qppengine::Tensor> outputs = session.run({image});
  std::cout << session.outputs()[0] << ": " << outputs[0].data[0] << '\n';
} catch (const qppengine::Error& error) {
  std::cerr << error.what() << '\n';
  return error.status();
}
