// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace starattn::cuda {

// From here on, where a profiler that reads NVTX has started this program.
void use_nvtx();

}  // namespace starattn::cuda
