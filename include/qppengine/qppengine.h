/* SPDX-License-Identifier: Apache-2.0
 *
 * qppengine for C. No function throws. Those that can fail return a status; the others return 0 or
 * null when they fail. The message names the expected and the actual input; it is returned
 * by qpp_error_message() until another call of the same thread fails.
 *
 * A null pointer or an index out of range is an error, unless stated otherwise. Closing a session
 * that another thread uses, or using one that is closed, is not detected. A forked child may use
 * the sessions of its parent.
 *
 *   qpp_session* session = NULL;
 *   if (qpp_session_open("model.qpp", NULL, &session) != QPP_OK) puts(qpp_error_message());
 */
#ifndef QPPENGINE_H
#define QPPENGINE_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define QPP_API __attribute__((visibility("default")))
#else
#define QPP_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef enum qpp_status {
  QPP_OK = 0,
  QPP_ERROR = 1,             /* an argument out of range, or no memory */
  QPP_ERROR_MODEL = 2,       /* a file that cannot be read, is damaged or not of this format */
  QPP_ERROR_SHAPE = 3,       /* an array of another shape than expected */
  QPP_ERROR_UNSUPPORTED = 4, /* a valid request that this build or model does not support */
  QPP_ERROR_NON_FINITE = 5   /* NaN or infinity: in a quantized run, or from finite inputs */
} qpp_status;

/* A model ready to run in one scheme. May be used from several threads: calls wait for each other.
 * For parallel work open one session per thread. */
typedef struct qpp_session qpp_session;

/* Null strings and zeros are the defaults. */
typedef struct qpp_options {
  const char* scheme;         /* "fp16", "static", "dynamic" or "qpp" (default) */
  const char* algorithm;      /* of convolutions: "auto" (default), "direct" or "winograd" */
  const char* cores;          /* that the threads run on: "all" (default) or "big" */
  const char* static_bounds;  /* of scheme "static": "mean", "range" or "fitted" */
  const char* residual_dtype; /* "int8" or "fp16", which sums read; default: fp16 if dynamic */
  int activation_bits;        /* 2 to 8 (default) */
  int threads;                /* 1 (default) to 256 */
  double density;             /* of dense + sparse execution: up to 0.1; default: int8 alone */
} qpp_options;

/* The order of all shapes and arrays: batch, channels, height, width (NCHW), the last fastest. */
typedef struct qpp_shape {
  int64_t sizes[4];
} qpp_shape;

/* "0.1.0", the version of the library. */
QPP_API const char* qpp_version(void);

/* The message of the last call of this thread that failed; never null, "" if none did. Valid
 * until the next call of this thread that fails. */
QPP_API const char* qpp_error_message(void);

/* Loads a .qpp file, which must be a regular file. `options` may be null. On success the session is
 * the caller's, to be closed; otherwise it is null. */
QPP_API qpp_status qpp_session_open(const char* path, const qpp_options* options,
                                    qpp_session** session);

/* The same from memory, which is not needed any more afterwards. */
QPP_API qpp_status qpp_session_open_memory(const void* data, size_t size,
                                           const qpp_options* options, qpp_session** session);

/* Null is allowed. */
QPP_API void qpp_session_close(qpp_session* session);

/* 0 only for a null session. */
QPP_API size_t qpp_session_input_count(const qpp_session* session);
QPP_API size_t qpp_session_output_count(const qpp_session* session);

/* Names live as long as the session; null for a null session or an index out of range. */
QPP_API const char* qpp_session_input_name(const qpp_session* session, size_t index);
QPP_API const char* qpp_session_output_name(const qpp_session* session, size_t index);

/* The expected shape; -1 is any size. */
QPP_API qpp_status qpp_session_input_shape(const qpp_session* session, size_t index,
                                           qpp_shape* shape);

/* Lays out memory for these shapes of the inputs, one each and all of one batch size, so that runs
 * with them do not allocate, and returns the shapes of the outputs, one each, unless
 * `output_shapes` is null. */
QPP_API qpp_status qpp_session_prepare(qpp_session* session, const qpp_shape* input_shapes,
                                       qpp_shape* output_shapes);

/* Runs on one float array and shape per input, and writes one float array per output, of the shape
 * that qpp_session_prepare() returns; an output whose pointer is null is not written. A batch runs
 * sample by sample, each as it would alone: of an error that names a sample, the outputs of those
 * before it are written. Outputs must not overlap inputs or each other. */
QPP_API qpp_status qpp_session_run(qpp_session* session, const float* const* inputs,
                                   const qpp_shape* input_shapes, float* const* outputs);

#ifdef __cplusplus
}
#endif

#endif
