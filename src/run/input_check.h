// SPDX-License-Identifier: Apache-2.0
// Every document of an input before any is computed: what `run --dry-run` and `plan --input` look
// through.
#pragma once

#include <string>

#include "base/error.h"
#include "base/function_ref.h"
#include "io/document.h"
#include "run/option_parts.h"

namespace starattn {

// take: each document, in the order in which a run would take them, with the input line's place in
// front of what it throws; the requests of a batch file are put together by context. refuse: what
// is wrong with a line, or what take threw as bad_data. Only the documents of --shard. Throws
// Error(no_input | io).
void for_each_document(const InputOptions& options, FunctionRef<void(const Document&)> take,
                       FunctionRef<void(const Error&)> refuse);

// What an input holds, counted.
struct InputCounts {
  std::int64_t n_documents = 0;
  std::int64_t n_queries = 0;
  std::int64_t n_tokens = 0;  // of all contexts
  std::int64_t most_tokens = 0;
  std::int64_t n_bad = 0;
  std::string text()
      const;  // "20 documents with 40 queries; 1,310,720 tokens, the longest has ..."
};

}  // namespace starattn
