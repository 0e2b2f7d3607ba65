// SPDX-License-Identifier: Apache-2.0
// One line of input: a document and the queries about it. docs/input-output.md has the format; the
// published tool's records (input_context, input_query, outputs, index) are read as well.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace starattn {

struct Query {
  std::string id;
  std::string text;  // or
  std::optional<std::vector<std::int32_t>> tokens;
  std::vector<std::string> answers;              // references, for the score
  std::optional<std::vector<std::string>> stop;  // in place of --stop, also when empty
  std::optional<std::int64_t> max_new_tokens;

  static void fields(auto& query, auto& archive) {
    auto& [id, text, tokens, answers, stop, max_new_tokens] = query;
    archive(id, text, tokens, answers, stop, max_new_tokens);
  }
};

struct Document {
  std::int64_t line = 0;  // in the input file, from 1
  std::string id;         // the line number where the record has none
  std::string context;    // exactly one of these three is in use
  std::string context_file;
  std::optional<std::vector<std::int32_t>> context_tokens;
  std::vector<Query> queries;
  bool is_published = false;  // the published tool's record
  Json record;                // published: the fields that its output repeats

  static void fields(auto& document, auto& archive) {
    auto& [line, id, context, context_file, context_tokens, queries, is_published, record] =
        document;
    archive(line, id, context, context_file, context_tokens, queries, is_published, record);
  }
};

// where: "input.jsonl:17". Throws Error(bad_data) naming key, expected and got.
Document parse_document(std::string_view text, std::int64_t line, const std::string& where);

// The id of a line that is bad otherwise, if it can be read.
std::string readable_id(std::string_view text, std::int64_t line);

// Of context_file: relative to the input file's folder.
std::string context_path(const Document& document, const std::string& input_path);
// The context's text: as it is, or the file's.
std::string context_text(const Document& document, const std::string& input_path);

}  // namespace starattn
