// SPDX-License-Identifier: Apache-2.0
// Stands in for the CUDA backend in a build without it.
#include "backend/backend.h"
#include "base/error.h"

namespace starattn {

int n_cuda_devices() {
  return 0;
}

std::unique_ptr<Backend> make_cuda_backend(int) {
  fail(Exit::unfit,
       "--device cuda: this build has no CUDA backend; build it with 'cmake --preset cuda', or use "
       "--device cpu");
}

}  // namespace starattn
