/* SPDX-License-Identifier: Apache-2.0
 * Runs a model of one gray image on 16x24 zeros: run_c espcn.qpp */
#include <qppengine/qppengine.h>
#include <stdio.h>
#include <stdlib.h>

int main(int count, char** arguments) {
  const qpp_options options = {.scheme = "qpp"};
  const qpp_shape shape = {{1, 1, 16, 24}};
  const float image[16 * 24] = {0};
  const float* const inputs[] = {image};
  float* outputs[] = {NULL};
  qpp_session* session = NULL;
  qpp_shape output;
  qpp_status status = qpp_session_open(count > 1 ? arguments[1] : "", &options, &session);
  if (status == QPP_OK) status = qpp_session_prepare(session, &shape, &output);
  if (status == QPP_OK) {
    const int64_t* sizes = output.sizes;
    outputs[0] = calloc((size_t)(sizes[0] * sizes[1] * sizes[2] * sizes[3]), sizeof(float));
    status = qpp_session_run(session, inputs, &shape, outputs);
  }
  if (status == QPP_OK) printf("%s: %g\n", qpp_session_output_name(session, 0), outputs[0][0]);
  if (status != QPP_OK) fprintf(stderr, "%s\n", qpp_error_message());
  free(outputs[0]);
  qpp_session_close(session);
  return (int)status;
}
