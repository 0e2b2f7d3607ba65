// SPDX-License-Identifier: Apache-2.0
// What every kernel launcher shares: the stream and the way it refuses bad arguments.
#pragma once

#include <stdexcept>
#include <string>

struct CUstream_st;

namespace starattn::kernels {

using Stream = CUstream_st*;  // cudaStream_t without CUDA's headers

// A shape that no kernel takes: the caller's mistake. The message names the shapes.
struct BadShape : std::invalid_argument {
  using std::invalid_argument::invalid_argument;
};

// CUDA refused something.
struct CudaFailure : std::runtime_error {
  using std::runtime_error::runtime_error;
};

}  // namespace starattn::kernels
