// SPDX-License-Identifier: Apache-2.0
#include "io/answer.h"

#include <algorithm>

#include "base/error.h"

namespace starattn {
namespace {

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  return text;
}

double rounded(double value, double grain) {
  return static_cast<double>(static_cast<std::int64_t>(value / grain + 0.5)) * grain;
}

}  // namespace

std::string to_output_line(const Answer& answer) {
  Json json;
  json["id"] = answer.id;
  json["query_id"] = answer.query_id;
  json["answer"] = answer.text;
  if (answer.reasoning) json["reasoning"] = *answer.reasoning;
  json["tokens"] = answer.tokens;
  json["finish_reason"] = answer.finish_reason;
  json["n_context"] = answer.n_context;
  json["n_query"] = answer.n_query;
  json["plan"] = {{"block_size", answer.block_size},
                  {"anchor_size", answer.anchor_size},
                  {"reach", answer.reach},
                  {"n_blocks", answer.n_blocks}};
  if (answer.recall > 0) {
    json["plan"]["recall"] = answer.recall;
    json["plan"]["recall_rows"] = answer.recall_rows;
  }
  json["seconds"] = {{"encode", rounded(answer.encode_seconds, 1e-6)},
                     {"answer", rounded(answer.answer_seconds, 1e-6)}};
  json["ms_per_token"] = rounded(answer.ms_per_token, 1e-3);
  if (answer.score) json["score"] = *answer.score;
  if (!answer.logprobs.empty()) {
    json["logprobs"] = Json::array();
    for (const auto& [token, logit] : answer.logprobs) json["logprobs"].push_back({token, logit});
  }
  return to_line(json);
}

std::string to_published_line(const Answer& answer, const Document& document) {
  Json json;
  json["index"] = document.record.contains("index") ? document.record["index"] : Json(answer.id);
  json["pred"] = answer.text;
  // What a rerun needs to know this line again.
  json["id"] = answer.id;
  json["query_id"] = answer.query_id;
  for (const auto& [key, value] : document.record.items()) {
    if (!json.contains(key) && key != "error" && key != "digest") json[key] = value;
  }
  return to_line(json);
}

AnswerKey key_of_output_line(const Json& line, const std::string& where) {
  const JsonObject object(line, where);
  AnswerKey key{object.get_string("id"), "", line.contains("error")};
  if (!key.is_error) key.query_id = object.get_string("query_id");
  return key;
}

void check_output_line(const Json& line, const std::string& where) {
  const JsonObject object(line, where);
  object.get_string("answer");
  const std::string reason = object.get_string("finish_reason");
  if (reason != "stop" && reason != "length")
    fail(Exit::bad_data, "{}: key 'finish_reason': expected stop or length, got '{}'", where,
         reason);
  if (!object.get("tokens").is_array())
    fail(Exit::bad_data, "{}: key 'tokens': expected an array of token ids, got {}", where,
         object.get("tokens").type_name());
}

void check_published_line(const Json& line, const std::string& where) {
  JsonObject(line, where).get_string("pred");
}

std::string to_error_line(std::int64_t line, const std::string& id, const std::string& error) {
  return to_line({{"line", line}, {"id", id}, {"error", error}});
}

double share_contained(const std::string& answer, const std::vector<std::string>& references) {
  if (references.empty()) return 0;
  const std::string text = lower(answer);
  const auto n =
      std::count_if(references.begin(), references.end(), [&](const std::string& reference) {
        return text.find(lower(reference)) != std::string::npos;
      });
  return static_cast<double>(n) / static_cast<double>(references.size());
}

}  // namespace starattn
