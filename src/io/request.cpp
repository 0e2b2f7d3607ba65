// SPDX-License-Identifier: Apache-2.0
#include "io/request.h"

#include <sys/stat.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/text.h"
#include "io/line_reader.h"

namespace starattn {
namespace {

constexpr JsonLimits kLimits{std::size_t{1} << 32, 80};
constexpr const char* kSpace = " \t\r\n";

using Keys = std::vector<std::string_view>;

// What a body may say, beside what its kind of request asks.
const Keys kHeeded = {
    "model",       "max_tokens",   "temperature",  "top_p",           "seed",
    "stop",        "logprobs",     "context_file", "response_format", "structured_outputs",
    "guided_json", "guided_regex", "guided_choice"};
const Keys kChat = {"messages", "max_completion_tokens", "top_logprobs"};
const Keys kCompletion = {"prompt"};
const Keys kWithoutEffect = {"user",           "metadata",           "store",
                             "service_tier",   "safety_identifier",  "prompt_cache_key",
                             "stream_options", "parallel_tool_calls"};
// As answers have them, too: what was thought in an earlier turn is not said again.
const Keys kOfMessage = {"role",      "content",           "name",       "refusal",
                         "reasoning", "reasoning_content", "annotations"};

// What else a body may say, as long as it asks for nothing that is not there: the values that mean
// so, the plainest first.
const std::vector<std::pair<std::string_view, std::vector<Json>>>& only_as() {
  static const std::vector<std::pair<std::string_view, std::vector<Json>>> kOnlyAs = {
      {"n", {1}},
      {"best_of", {1}},
      {"stream", {false}},
      {"echo", {false}},
      {"suffix", {""}},
      {"presence_penalty", {0}},
      {"frequency_penalty", {0}},
      {"repetition_penalty", {1}},
      {"top_k", {-1, 0}},
      {"min_p", {0}},
      {"min_tokens", {0}},
      {"ignore_eos", {false}},
      {"skip_special_tokens", {true}},
      {"add_generation_prompt", {true}},
      {"stop_token_ids", {Json::array()}},
      {"logit_bias", {Json::object()}},
      {"tools", {Json::array()}},
      {"tool_choice", {"none", "auto"}},
      {"modalities", {Json::array({"text"})}}};
  return kOnlyAs;
}

bool is_one_of(const Keys& keys, std::string_view key) {
  return std::ranges::find(keys, key) != keys.end();
}

void check_keys(const JsonObject& body, const Keys& own) {
  for (const auto& [key, value] : body.json().items()) {
    if (value.is_null() || is_one_of(kHeeded, key) || is_one_of(own, key) ||
        is_one_of(kWithoutEffect, key))
      continue;
    const auto known = std::ranges::find(only_as(), std::string_view(key),
                                         [](const auto& entry) { return entry.first; });
    if (known == only_as().end()) {
      fail(Exit::bad_data, "{}: unknown key '{}'; the keys are {}, {}", body.where(),
           one_line(key.substr(0, 80)), fmt::join(own, ", "), fmt::join(kHeeded, ", "));
    }
    if (std::ranges::find(known->second, value) == known->second.end()) {
      fail(Exit::bad_data, "{}: key '{}': nothing but {} is supported, got {}", body.where(), key,
           to_line(known->second.front()), first_characters(to_line(value), 80));
    }
  }
}

// A text, or its parts: [{"type": "text", "text": "..."}].
std::vector<std::string> parts_of(const Json& content, const std::string& where) {
  if (content.is_string()) return {content.get<std::string>()};
  if (!content.is_array() || content.empty()) {
    fail(Exit::bad_data, "{}: key 'content': expected a text or an array of its parts, got {}",
         where, content.is_array() ? "an empty one" : content.type_name());
  }
  std::vector<std::string> parts;
  for (const Json& entry : content) {
    const JsonObject part(entry, fmt::format("{}: content part {}", where, parts.size()));
    if (part.get_string("type") != "text") {
      fail(Exit::bad_data, "{}: key 'type': nothing but text is supported, got '{}'", part.where(),
           one_line(part.get_string("type").substr(0, 80)));
    }
    parts.push_back(part.get_string("text"));
  }
  return parts;
}

std::string role_of(const JsonObject& message) {
  const std::string role = message.get_string("role");
  if (role == "developer") return "system";  // its younger name
  if (role != "system" && role != "user" && role != "assistant") {
    fail(Exit::bad_data, "{}: key 'role': expected system, user or assistant, got '{}'",
         message.where(), one_line(role.substr(0, 80)));
  }
  return role;
}

// What is no text of the message would be lost without a word.
void check_keys(const JsonObject& message) {
  for (const auto& [key, value] : message.json().items()) {
    if (is_one_of(kOfMessage, key) || value.empty()) continue;
    fail(Exit::bad_data, "{}: unknown key '{}'; the keys are {}", message.where(),
         one_line(key.substr(0, 80)), fmt::join(kOfMessage, ", "));
  }
}

// Where the blanks begin that stand in front of `at`.
std::size_t before_blanks(std::string_view text, std::size_t at) {
  return at == 0 ? 0 : text.find_last_not_of(kSpace, at - 1) + 1;
}

// Where the last paragraph begins, the blank line in front of it included; 0 when it is the only
// one.
std::size_t last_paragraph(std::string_view text) {
  const std::size_t last = text.find_last_not_of(kSpace);
  if (last == std::string_view::npos) return 0;
  for (std::size_t at = text.rfind('\n', last); at != std::string_view::npos && at > 0;
       at = text.rfind('\n', at - 1)) {
    const std::size_t before = text.find_last_not_of(" \t\r", at - 1);
    if (before == std::string_view::npos) return 0;
    if (text[before] == '\n') return before_blanks(text, before);
  }
  return 0;
}

// Where the question begins in the text that is asked last; 0 when all of it is the question.
std::size_t begin_of_question(const std::vector<std::string>& parts, std::string_view text,
                              std::size_t n_said_before, const std::string& marker,
                              const std::string& where) {
  if (!marker.empty()) {
    const std::size_t at = text.rfind(marker);
    if (at == std::string_view::npos) {
      fail(Exit::bad_data,
           "{}: '{}', where --question-marker says that the question begins, is "
           "not in it",
           where, one_line(marker));
    }
    return before_blanks(text, at);
  }
  if (parts.size() > 1) return text.size() - parts.back().size() - 1;
  return n_said_before > text.size() ? 0 : last_paragraph(text);
}

// The last message, or the prompt, becomes the end of the context and the question.
void split(Document& document, const std::vector<std::string>& parts, const std::string& marker,
           const std::string& where) {
  const std::string text = fmt::format("{}", fmt::join(parts, "\n"));
  if (text.find_first_not_of(kSpace) == std::string::npos)
    fail(Exit::bad_data, "{}: the text is empty", where);
  std::string& question = document.queries[0].text;
  if (!document.context_file.empty()) {
    question = "\n\n" + text;
    return;
  }
  std::size_t n_said_before = 0;
  for (const Message& message : document.messages) n_said_before += message.text.size();
  const std::size_t begin = begin_of_question(parts, text, n_said_before, marker, where);
  document.context = text.substr(0, begin);
  question = text.substr(begin);
  if (question.find_first_not_of(kSpace) == std::string::npos)
    fail(Exit::bad_data, "{}: the last part, which is the question, is empty", where);
}

void read_messages(Document& document, const JsonObject& body, const std::string& marker) {
  const Json& messages = body.get("messages");
  if (!messages.is_array() || messages.empty()) {
    fail(Exit::bad_data, "{}: key 'messages': expected an array with at least one message",
         body.where());
  }
  for (std::size_t i = 0; i < messages.size(); ++i) {
    const JsonObject message(messages[i], fmt::format("{}: message {}", body.where(), i));
    const std::string role = role_of(message);
    check_keys(message);
    const std::vector<std::string> parts = parts_of(message.get("content"), message.where());
    if (i + 1 < messages.size()) {
      document.messages.push_back({role, fmt::format("{}", fmt::join(parts, "\n"))});
    } else if (role != "user") {
      fail(Exit::bad_data, "{}: the last message asks, so its role has to be user, got {}",
           message.where(), role);
    } else {
      split(document, parts, marker, message.where());
    }
  }
}

std::vector<std::string> stops_of(const JsonObject& body) {
  const Json& stop = body.get("stop");
  std::vector<std::string> all;
  for (const Json& text : stop.is_array() ? stop : Json::array({stop})) {
    if (!text.is_string()) {
      fail(Exit::bad_data, "{}: key 'stop': expected a text or an array of texts, got {}",
           body.where(), text.type_name());
    }
    all.push_back(text.get<std::string>());
  }
  return all;
}

AnswerForm choice_of(const Json& texts, const std::string& where) {
  AnswerForm form{AnswerForm::Kind::choice, {}};
  if (!texts.is_array()) {
    fail(Exit::bad_data, "{}: expected an array of texts, got {}", where, texts.type_name());
  }
  for (const Json& text : texts) {
    if (!text.is_string())
      fail(Exit::bad_data, "{}: expected an array of texts, got a {}", where, text.type_name());
    form.texts.push_back(text.get<std::string>());
  }
  return form;
}

// What vLLM takes, as keys of the body or in one object: one of these three, under such names.
std::optional<AnswerForm> find_form(const JsonObject& object, const char* json, const char* regex,
                                    const char* choice) {
  if (object.has(json) + object.has(regex) + object.has(choice) > 1) {
    fail(Exit::bad_data, "{}: expected one of '{}', '{}' and '{}'", object.where(), json, regex,
         choice);
  }
  if (object.has(json)) {
    const Json& schema = object.get(json);  // or its text
    return AnswerForm{AnswerForm::Kind::schema,
                      {schema.is_string() ? schema.get<std::string>() : to_line(schema)}};
  }
  if (object.has(regex)) return AnswerForm{AnswerForm::Kind::regex, {object.get_string(regex)}};
  if (!object.has(choice)) return std::nullopt;
  return choice_of(object.get(choice), fmt::format("{}: key '{}'", object.where(), choice));
}

std::optional<AnswerForm> form_of(const JsonObject& body) {
  std::optional<AnswerForm> form = find_form(body, "guided_json", "guided_regex", "guided_choice");
  const auto set = [&](std::optional<AnswerForm> other) {
    if (form)
      fail(Exit::bad_data, "{}: more than one key says what the answer looks like", body.where());
    form = std::move(other);
  };
  if (body.has("structured_outputs")) {
    const JsonObject said = body.get_object("structured_outputs");
    set(find_form(said, "json", "regex", "choice"));
    for (const auto& [key, value] : said.json().items()) {
      if (key != "json" && key != "regex" && key != "choice" && !value.is_null()) {
        fail(Exit::bad_data, "{}: unknown key '{}'; the keys are json, regex, choice", said.where(),
             one_line(key.substr(0, 80)));
      }
    }
  }
  if (!body.has("response_format")) return form;
  const JsonObject format = body.get_object("response_format");
  const std::string type = format.get_string("type");
  if (type == "text") {
    set(AnswerForm{});
  } else if (type == "json_object") {
    set(AnswerForm{AnswerForm::Kind::json, {}});
  } else if (type == "json_schema") {
    const JsonObject json_schema = format.get_object("json_schema");
    set(AnswerForm{AnswerForm::Kind::schema, {to_line(json_schema.get("schema"))}});
  } else {
    fail(Exit::bad_data, "{}: key 'type': expected json_schema, json_object or text, got '{}'",
         format.where(), one_line(type.substr(0, 80)));
  }
  return form;
}

std::optional<double> find_between(const JsonObject& body, const char* key, double low,
                                   double high) {
  const std::optional<double> value = body.find_number(key);
  if (value && (*value < low || *value > high)) {
    fail(Exit::bad_data, "{}: key '{}': expected a number from {} to {}, got {}", body.where(), key,
         low, high, *value);
  }
  return value;
}

void read_settings(Query& query, const JsonObject& body, DocumentKind kind) {
  constexpr std::int64_t kMostTokens = std::int64_t{1} << 20;
  constexpr std::int64_t kMostLogprobs = 20;
  RequestFields& request = query.request;
  request.model = body.find_string("model").value_or("");
  query.max_new_tokens = body.find_int("max_tokens", 1, kMostTokens);
  request.temperature = find_between(body, "temperature", 0, 100);
  request.top_p = find_between(body, "top_p", 0, 1);
  if (const auto seed = body.find_int("seed", INT64_MIN, INT64_MAX))
    request.seed = static_cast<std::uint64_t>(*seed);
  if (body.has("stop")) query.stop = stops_of(body);
  query.form = form_of(body);
  if (kind == DocumentKind::completion) {
    request.n_logprobs = body.find_int("logprobs", 0, kMostLogprobs);
    return;
  }
  if (const auto most = body.find_int("max_completion_tokens", 1, kMostTokens))
    query.max_new_tokens = most;
  const std::int64_t n_top = body.find_int("top_logprobs", 0, kMostLogprobs).value_or(0);
  if (body.find_bool("logprobs").value_or(false)) {
    request.n_logprobs = n_top;
  } else if (n_top > 0) {
    fail(Exit::bad_data, "{}: key 'top_logprobs': only with \"logprobs\": true", body.where());
  }
}

DocumentKind kind_of(const JsonObject& request) {
  const std::string method = request.get_string("method");
  const std::string url = request.get_string("url");
  if (method != "POST") {
    fail(Exit::bad_data, "{}: key 'method': expected POST, got '{}'", request.where(),
         one_line(method.substr(0, 80)));
  }
  if (url.ends_with("/chat/completions")) return DocumentKind::chat;
  if (url.ends_with("/completions")) return DocumentKind::completion;
  fail(Exit::bad_data, "{}: key 'url': expected /v1/chat/completions or /v1/completions, got '{}'",
       request.where(), one_line(url.substr(0, 80)));
}

}  // namespace

bool is_request(std::string_view text) {
  try {
    const Json json = parse_json(text, "", kLimits);
    return json.is_object() && json.contains("custom_id") && json.contains("body");
  } catch (const Error&) {
    // Within a text the quotes would be escaped.
    return text.find("\"custom_id\"") != std::string_view::npos &&
           text.find("\"body\"") != std::string_view::npos;
  }
}

bool is_request_file(const std::string& path) {
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0 || !S_ISREG(info.st_mode)) return false;
  LineReader reader(path);
  const std::optional<Line> line = reader.next();
  if (!line || !is_request(line->text)) return false;
  if (reader.is_packed()) {
    fail(Exit::bad_data,
         "{}: requests of a batch file are read twice, first to find those with equal contexts, "
         "so gzip must not pack them; unpack it: gunzip",
         path);
  }
  return true;
}

Document parse_request(std::string_view text, std::int64_t line, const std::string& where,
                       const std::string& question_marker) {
  std::size_t bad = 0;
  if (!is_utf8(text, &bad)) fail(Exit::bad_data, "{}: not UTF-8 at byte {}", where, bad);
  const Json parsed = parse_json(text, where, kLimits);
  const JsonObject request(parsed, where);
  Document document;
  document.line = line;
  document.id = request.get_string("custom_id");
  if (document.id.empty()) fail(Exit::bad_data, "{}: key 'custom_id': the text is empty", where);
  document.kind = kind_of(request);
  const JsonObject body = request.get_object("body");
  const bool is_chat = document.kind == DocumentKind::chat;
  check_keys(body, is_chat ? kChat : kCompletion);
  document.context_file = body.find_string("context_file").value_or("");
  document.queries.resize(1);
  Query& query = document.queries[0];
  query.id = document.id;
  query.request.line = line;
  read_settings(query, body, document.kind);
  if (is_chat) {
    read_messages(document, body, question_marker);
  } else {
    split(document, {body.get_string("prompt")}, question_marker, where + ": key 'prompt'");
  }
  return document;
}

std::string readable_custom_id(std::string_view text) {
  try {
    const Json json = parse_json(text, "", kLimits);
    if (json.is_object() && json.contains("custom_id") && json["custom_id"].is_string())
      return json["custom_id"].get<std::string>();
  } catch (const Error&) {
    // Not readable.
  }
  return "";
}

}  // namespace starattn
