// SPDX-License-Identifier: Apache-2.0
// run --dry-run: the whole input read, tokenized, planned and held against the memory; nothing is
// computed and no output is touched.
#pragma once

#include "run/loaded_model.h"
#include "run/options.h"

namespace starattn {

// On the first rank, which says what it finds. Exit::bad_data where a document or a request could
// not be answered. Throws Error(no_input | io).
Exit dry_run(const Options& options, const Ranks& ranks, const LoadedModel& model);

}  // namespace starattn
