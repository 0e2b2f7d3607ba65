// SPDX-License-Identifier: Apache-2.0
// One line of output: the answer to one query, in our format or in the published tool's.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "io/document.h"

namespace starattn {

// Of which answer a line of output is.
struct AnswerKey {
  std::string id;  // the document's
  std::string query_id;
  bool is_error = false;  // a line that says why there is no answer; the ids may be missing
};

struct TokenLogprob {
  std::string bytes;  // that the token stands for
  float logprob = 0;  // natural, of all tokens of the vocabulary at temperature 1
};

struct TokenLogprobs {
  TokenLogprob chosen;
  std::vector<TokenLogprob> top;  // the likeliest, descending
};

struct Answer {
  std::string id;
  std::string query_id;
  std::string text;
  std::optional<std::string> reasoning;  // what was thought before, where it is kept apart
  std::vector<std::int32_t> tokens;
  std::string finish_reason;  // "stop" or "length"
  std::int64_t n_context = 0;
  std::int64_t n_query = 0;
  std::int64_t block_size = 0;
  std::int64_t anchor_size = 0;
  std::int64_t reach = 0;
  std::int64_t recall = 0;  // tokens; with 0 neither is written
  std::int64_t recall_rows = 0;
  std::int64_t n_blocks = 0;
  double encode_seconds = 0;
  double answer_seconds = 0;
  double ms_per_token = 0;
  std::optional<double> score;  // share of the references contained, 0 to 1
  std::vector<std::pair<std::int32_t, float>> logprobs;
  std::optional<std::vector<TokenLogprobs>> token_logprobs;  // of a request that asks for them
};

std::string to_output_line(const Answer& answer);
// The published tool's fields: the record's own, and "pred".
std::string to_published_line(const Answer& answer, const Document& document);
// The ids of these lines and of error lines; AnswerWriter::KeyOfLine.
AnswerKey key_of_output_line(const Json& line, const std::string& where);
// Whether a line read back is one of these; AnswerWriter::LineCheck.
void check_output_line(const Json& line, const std::string& where);
void check_published_line(const Json& line, const std::string& where);
// {"line", "id", "error"}
std::string to_error_line(std::int64_t line, const std::string& id, const std::string& error);

// RULER's string_match_all: the share of references that the answer contains, case ignored (ASCII).
double share_contained(const std::string& answer, const std::vector<std::string>& references);

}  // namespace starattn
