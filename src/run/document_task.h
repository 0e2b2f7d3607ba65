// SPDX-License-Identifier: Apache-2.0
// A document as tokens, ready for the two phases: made by a group's first rank, shared with the
// others.
#pragma once

#include <string>
#include <vector>

#include "io/document.h"
#include "mpi/communicator.h"
#include "run/options.h"
#include "run/text_model.h"
#include "star/answer.h"

namespace starattn {

struct QueryTask {
  std::int64_t index = 0;  // among the document's queries
  std::string id;
  QueryJob job;
  std::vector<std::string> stop;

  static void fields(auto& query, auto& archive) {
    auto& [index, id, job, stop] = query;
    auto& [tokens, max_new_tokens, sampling_key] = job;
    archive(index, id, tokens, max_new_tokens, sampling_key, stop);
  }
};

struct DocumentTask {
  std::string id;
  std::vector<Token> context;
  std::vector<QueryTask> queries;
  std::int64_t n_dropped_bytes = 0;  // of its texts, for which the vocabulary has no token

  static void fields(auto& task, auto& archive) {
    auto& [id, context, queries, n_dropped_bytes] = task;
    archive(id, context, queries, n_dropped_bytes);
  }
};

// todo: indices of the queries to answer. Throws Error(bad_data | no_input) for what cannot be
// asked: ids beyond the vocabulary, more tokens than the model has positions.
DocumentTask tokenize(const Document& document, const std::vector<std::int64_t>& todo,
                      const std::string& input_path, const Options& options,
                      const TextModel& model);

// Everybody in the group gets the first rank's task. Collective.
void share(DocumentTask& task, const Communicator& group);

}  // namespace starattn
