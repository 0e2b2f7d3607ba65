// SPDX-License-Identifier: Apache-2.0
// A document as tokens, ready for the two phases: made by a group's first rank, shared with the
// others.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "io/document.h"
#include "mpi/communicator.h"
#include "run/option_parts.h"
#include "run/text_model.h"
#include "star/answer.h"

namespace starattn {

struct QueryTask {
  std::int64_t index = 0;  // among the document's queries
  std::string id;
  QueryJob job;
  bool opens_thinking = false;  // the prompt does: the answer begins inside
  AnswerForm form;
  std::vector<std::string> stop;
  // Of a request that asks for the logits' probabilities: how many beside the token's own.
  std::optional<std::int64_t> n_logprobs;
  // An answer in two rounds (--thinking-tokens): what the first one gave stands at the end of the
  // job's tokens; n_later tokens may come after this round.
  std::vector<Token> begun;
  double begun_seconds = 0;
  std::int64_t n_later = 0;

  static void fields(auto& query, auto& archive) {
    auto& [index, id, job, opens_thinking, form, stop, n_logprobs, begun, begun_seconds, n_later] =
        query;
    auto& [tokens, max_new_tokens, sampling_key, sampling] = job;
    auto& [temperature, top_p] = sampling;
    archive(index, id, tokens, max_new_tokens, sampling_key, temperature, top_p, opens_thinking,
            form, stop, n_logprobs, begun, begun_seconds, n_later);
  }
};

struct BadQuery {
  std::int64_t index = 0;  // among the document's queries
  std::string error;

  static void fields(auto& query, auto& archive) {
    auto& [index, error] = query;
    archive(index, error);
  }
};

struct DocumentTask {
  std::string id;
  std::vector<Token> context;
  std::vector<QueryTask> queries;
  bool is_of_requests = false;       // one that cannot be answered does the others no harm
  std::vector<BadQuery> bad;         // such, among those to answer; on the group's first rank
  std::int64_t n_dropped_bytes = 0;  // of its texts, for which the vocabulary has no token

  static void fields(auto& task, auto& archive) {
    auto& [id, context, queries, is_of_requests, bad, n_dropped_bytes] = task;
    archive(id, context, queries, is_of_requests, bad, n_dropped_bytes);
  }
};

// todo: indices of the queries to answer. Throws Error(bad_data | no_input) for what cannot be
// asked: ids beyond the vocabulary, more tokens than the model has positions. Of requests, those
// that cannot be asked are left out.
DocumentTask tokenize(const Document& document, const std::vector<std::int64_t>& todo,
                      const std::string& input_path, const QueryOptions& options,
                      const TextModel& model);

// What the query's answer is held to; nothing where it is free. Throws Error(bad_data) as Grammar.
std::shared_ptr<Grammar> grammar_of(const QueryTask& query, const TextModel& model);

// Everybody in the group gets the first rank's task. Collective.
void share(DocumentTask& task, const Communicator& group);

}  // namespace starattn
