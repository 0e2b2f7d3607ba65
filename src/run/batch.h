// SPDX-License-Identifier: Apache-2.0
// The main job, for `run`, `encode` and `answer`: a batch of documents, each encoded (phase 1), its
// queries answered (phase 2), its answers written.
#pragma once

#include "base/error.h"
#include "run/options.h"

namespace starattn {

enum class Work {
  encode,  // phase 1 into checkpoints
  answer,  // phase 2 from checkpoints
  both,
};

Exit run_batch(const Options& options, Work work);

}  // namespace starattn
