// SPDX-License-Identifier: Apache-2.0
// One line of input: a document and the queries about it. docs/input-output.md has the format; the
// published tool's records (input_context, input_query, outputs, index) are read as well, and
// request.h reads the requests of batch files.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "grammar/answer_form.h"

namespace starattn {

// What a request of a batch file says beside its texts (request.h).
struct RequestFields {
  std::int64_t line = 0;  // in the input file, from 1
  std::string model;      // as it is named there; the answer repeats it
  std::optional<double> temperature;
  std::optional<double> top_p;
  std::optional<std::uint64_t> seed;
  std::optional<std::int64_t> n_logprobs;  // of every token of the answer; 0: its own alone

  static void fields(auto& request, auto& archive) {
    auto& [line, model, temperature, top_p, seed, n_logprobs] = request;
    archive(line, model, temperature, top_p, seed, n_logprobs);
  }
};

struct Query {
  std::string id;
  std::string text;  // or
  std::optional<std::vector<std::int32_t>> tokens;
  std::vector<std::string> answers;              // references, for the score
  std::optional<std::vector<std::string>> stop;  // in place of --stop, also when empty
  std::optional<std::int64_t> max_new_tokens;
  std::optional<AnswerForm> form;  // in place of the run's
  RequestFields request;           // of a request

  static void fields(auto& query, auto& archive) {
    auto& [id, text, tokens, answers, stop, max_new_tokens, form, request] = query;
    archive(id, text, tokens, answers, stop, max_new_tokens, form, request);
  }
};

// A turn of a conversation.
struct Message {
  std::string role;  // "system", "user" or "assistant"
  std::string text;

  static void fields(auto& message, auto& archive) {
    auto& [role, text] = message;
    archive(role, text);
  }
};

// What a document was read from.
enum class DocumentKind {
  ours,
  published,   // the published tool's record
  chat,        // requests for chat completions
  completion,  // requests for completions
};

struct Document {
  std::int64_t line = 0;  // in the input file, from 1
  std::string id;         // the line number where the record has none
  std::string context;    // exactly one of these three is in use
  std::string context_file;
  std::optional<std::vector<std::int32_t>> context_tokens;
  std::vector<Query> queries;
  DocumentKind kind = DocumentKind::ours;
  Json record;                    // published: the fields that its output repeats
  std::vector<Message> messages;  // chat: what was said before; the context is of the last message

  static void fields(auto& document, auto& archive) {
    auto& [line, id, context, context_file, context_tokens, queries, kind, record, messages] =
        document;
    archive(line, id, context, context_file, context_tokens, queries, kind, record, messages);
  }

  bool is_published() const { return kind == DocumentKind::published; }
  bool is_of_requests() const {
    return kind == DocumentKind::chat || kind == DocumentKind::completion;
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
