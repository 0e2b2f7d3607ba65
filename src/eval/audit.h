// SPDX-License-Identifier: Apache-2.0
// eval --audit: a sample of the user's own documents answered twice, exactly and with the chosen
// settings. No references are needed: the exact answers are the reference. Then both next-token
// distributions are compared along the exact answer's tokens. docs/audit.md says what comes out.
#pragma once

#include <cstdint>
#include <string>

#include "base/error.h"
#include "run/options.h"

namespace starattn {

struct AuditOptions {
  Options run;  // input, output, the settings under audit; answers are greedy
  std::int64_t n_sample = 20;
  std::uint64_t seed = 42;
  std::string exact = "ring";  // or dense
};

// Collective over the job. Exit::bad_data when documents of the sample could not be asked.
Exit run_audit(const AuditOptions& options);

}  // namespace starattn
