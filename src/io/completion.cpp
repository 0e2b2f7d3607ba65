// SPDX-License-Identifier: Apache-2.0
#include "io/completion.h"

#include <xxhash.h>

#include <algorithm>

#include "base/error.h"

namespace starattn {
namespace {

// The format's ids say nothing but which lines belong together.
std::string name_of(const char* what, const std::string& custom_id) {
  return fmt::format("{}{:016x}", what, XXH3_64bits(custom_id.data(), custom_id.size()));
}

Json line_of(const std::string& custom_id, int status, Json body, Json error) {
  Json json;
  json["id"] = name_of("batch_req_", custom_id);
  json["custom_id"] = custom_id.empty() ? Json() : Json(custom_id);
  json["response"] = {{"status_code", status},
                      {"request_id", name_of("req_", custom_id)},
                      {"body", std::move(body)}};
  json["error"] = std::move(error);
  return json;
}

Json bytes_of(const std::string& text) {
  Json bytes = Json::array();
  for (const char c : text) bytes.push_back(static_cast<unsigned char>(c));
  return bytes;
}

Json chat_logprob(const TokenLogprob& token) {
  return {{"token", token.bytes}, {"logprob", token.logprob}, {"bytes", bytes_of(token.bytes)}};
}

Json chat_logprobs(const std::vector<TokenLogprobs>& tokens) {
  Json content = Json::array();
  for (const TokenLogprobs& token : tokens) {
    Json one = chat_logprob(token.chosen);
    one["top_logprobs"] = Json::array();
    for (const TokenLogprob& other : token.top) one["top_logprobs"].push_back(chat_logprob(other));
    content.push_back(std::move(one));
  }
  return {{"content", std::move(content)}};
}

Json completion_logprobs(const std::vector<TokenLogprobs>& tokens) {
  Json json = {{"tokens", Json::array()},
               {"token_logprobs", Json::array()},
               {"top_logprobs", Json::array()},
               {"text_offset", Json::array()}};
  std::ptrdiff_t offset = 0;  // in characters, as the format has it
  for (const TokenLogprobs& token : tokens) {
    Json top = Json::object();
    for (const TokenLogprob& other : token.top) top[other.bytes] = other.logprob;
    json["tokens"].push_back(token.chosen.bytes);
    json["token_logprobs"].push_back(token.chosen.logprob);
    json["top_logprobs"].push_back(std::move(top));
    json["text_offset"].push_back(offset);
    offset += std::ranges::count_if(token.chosen.bytes,
                                    [](unsigned char byte) { return (byte & 0xc0) != 0x80; });
  }
  return json;
}

}  // namespace

std::string to_completion_line(const Answer& answer, DocumentKind kind,
                               const RequestFields& request, std::int64_t created) {
  const bool is_chat = kind == DocumentKind::chat;
  Json choice = {{"index", 0}};
  if (is_chat) {
    choice["message"] = {{"role", "assistant"}, {"content", answer.text}};
    if (answer.reasoning) choice["message"]["reasoning"] = *answer.reasoning;
  } else {
    choice["text"] = answer.text;
  }
  choice["logprobs"] = nullptr;
  if (answer.token_logprobs) {
    choice["logprobs"] = is_chat ? chat_logprobs(*answer.token_logprobs)
                                 : completion_logprobs(*answer.token_logprobs);
  }
  choice["finish_reason"] = answer.finish_reason;

  const std::int64_t n_prompt = answer.n_context + answer.n_query;
  const std::int64_t n_new = std::ssize(answer.tokens);
  Json body;
  body["id"] = name_of(is_chat ? "chatcmpl-" : "cmpl-", answer.query_id);
  body["object"] = is_chat ? "chat.completion" : "text_completion";
  body["created"] = created;
  body["model"] = request.model;
  body["choices"] = Json::array({std::move(choice)});
  body["usage"] = {{"prompt_tokens", n_prompt},
                   {"completion_tokens", n_new},
                   {"total_tokens", n_prompt + n_new}};
  return to_line(line_of(answer.query_id, 200, std::move(body), nullptr));
}

std::string to_completion_error(const std::string& custom_id, const std::string& message) {
  const Json body = {{"error",
                      {{"message", message},
                       {"type", "invalid_request_error"},
                       {"param", nullptr},
                       {"code", nullptr}}}};
  return to_line(
      line_of(custom_id, 400, body, {{"code", "invalid_request"}, {"message", message}}));
}

AnswerKey key_of_completion(const Json& line, const std::string& where) {
  const JsonObject object(line, where);
  if (object.has("error")) return {"", "", true};
  const std::string custom_id = object.get_string("custom_id");
  return {custom_id, custom_id, false};
}

void check_completion_line(const Json& line, const std::string& where) {
  const JsonObject response = JsonObject(line, where).get_object("response");
  if (response.get_int("status_code", 100, 599) != 200)
    fail(Exit::bad_data, "{}: key 'status_code': expected 200 where 'error' is null", where);
  const JsonObject body = response.get_object("body");
  const Json& choices = body.get("choices");
  if (!choices.is_array() || choices.size() != 1)
    fail(Exit::bad_data, "{}: key 'choices': expected an array of one choice", where);
  const JsonObject choice(choices[0], where + ": choice 0");
  if (choice.has("message")) {
    choice.get_object("message").get_string("content");
  } else {
    choice.get_string("text");
  }
}

}  // namespace starattn
