// SPDX-License-Identifier: Apache-2.0
#include "io/document.h"

#include <sys/stat.h>

#include <algorithm>
#include <set>

#include "base/error.h"
#include "base/file.h"
#include "base/text.h"
#include "io/text_source.h"

namespace starattn {
namespace {

constexpr std::size_t kMaxContextBytes = std::size_t{1} << 32;
// Of a line of ours. A schema may stand in a query. What stands under "meta", in a document or a
// query, is the user's: of any depth, and not kept; further in, as in a schema, it is a name.
constexpr JsonLimits kLimits{kMaxContextBytes, 80, SIZE_MAX, "meta", 3};

std::string id_text(const Json& id, const std::string& where) {
  if (id.is_string()) return id.get<std::string>();
  if (id.is_number_integer()) return id.dump();
  if (id.is_number())
    fail(Exit::bad_data,
         "{}: expected text or an integer of at most 19 digits, got another number; put it in "
         "double quotes",
         where);
  fail(Exit::bad_data, "{}: expected text or an integer, got {}", where, id.type_name());
}

std::vector<std::int32_t> token_ids(const Json& json, const std::string& where) {
  if (!json.is_array())
    fail(Exit::bad_data, "{}: expected an array of token ids, got {}", where, json.type_name());
  std::vector<std::int32_t> tokens;
  for (const Json& token : json) {
    if (!token.is_number_unsigned() || token.get<std::uint64_t>() > INT32_MAX) {
      fail(Exit::bad_data, "{}: entry {}: expected a token id, got {}", where, tokens.size(),
           to_line(token).substr(0, 40));
    }
    tokens.push_back(token.get<std::int32_t>());
  }
  return tokens;
}

// A string, or an array of strings and numbers.
std::vector<std::string> texts(const Json& json, const std::string& where) {
  if (json.is_string()) return {json.get<std::string>()};
  if (!json.is_array()) fail(Exit::bad_data, "{}: expected a string or an array of strings", where);
  std::vector<std::string> all;
  for (const Json& text : json)
    all.push_back(text.is_string() ? text.get<std::string>() : id_text(text, where));
  return all;
}

// Formats that people bring, by the keys that give them away.
std::string_view format_by_keys(const Json& json) {
  const auto has = [&](const char* key) { return json.contains(key); };
  if (has("messages") || has("conversations")) return "a chat of several turns";
  if (has("input") && has("outputs")) return "a record of RULER";
  if (has("input") && has("context") && has("answers")) return "a record of LongBench";
  if (has("paragraphs") || has("qas")) return "an article of SQuAD";
  if (has("question") && has("context")) return "a record of questions and answers";
  if (has("prompt")) return "a prompt for a completion";
  if (has("query_id") && (has("answer") || has("pred"))) return "a line of answers, not of input";
  return {};
}

void allow_keys(const JsonObject& json, const std::vector<std::string_view>& known) {
  for (const auto& [key, value] : json.json().items()) {
    if (std::ranges::find(known, key) != known.end()) continue;
    const std::string_view format = format_by_keys(json.json());
    fail(Exit::bad_data, "{}: unknown key '{}'; the keys are {}{}", json.where(),
         one_line(key.substr(0, 80)), fmt::join(known, ", "),
         format.empty() ? " (what is yours goes under 'meta')"
                        : fmt::format(". This looks like {}: its text belongs under 'context', its "
                                      "questions under 'queries'",
                                      format));
  }
}

std::optional<AnswerForm> form_of(const JsonObject& query) {
  const bool has_schema = query.has("schema");
  const bool has_regex = query.has("regex");
  const bool has_choice = query.has("choice");
  if (has_schema + has_regex + has_choice > 1)
    fail(Exit::bad_data, "{}: expected one of 'schema', 'regex' and 'choice'", query.where());
  using Kind = AnswerForm::Kind;
  if (has_schema) return AnswerForm{Kind::schema, {to_line(query.get("schema"))}};
  if (has_regex) return AnswerForm{Kind::regex, {query.get_string("regex")}};
  if (has_choice)
    return AnswerForm{Kind::choice, texts(query.get("choice"), query.where() + ": key 'choice'")};
  return std::nullopt;
}

Query parse_query(const Json& json, std::size_t index, const std::string& document_where) {
  const std::string where = fmt::format("{}: query {}", document_where, index);
  Query query;
  query.id = std::to_string(index);
  if (json.is_string()) {
    query.text = json.get<std::string>();
    if (query.text.empty()) fail(Exit::bad_data, "{}: the text is empty", where);
    return query;
  }
  const JsonObject object(json, where);
  allow_keys(object, {"id", "text", "tokens", "answers", "max_new_tokens", "stop", "schema",
                      "regex", "choice", "meta"});
  if (object.has("id")) query.id = id_text(object.get("id"), where + ": key 'id'");
  if (object.has("tokens") == object.has("text")) {
    fail(Exit::bad_data, "{}: expected exactly one of 'text' and 'tokens'", where);
  }
  if (object.has("tokens")) {
    query.tokens = token_ids(object.get("tokens"), where + ": key 'tokens'");
    if (query.tokens->empty()) fail(Exit::bad_data, "{}: key 'tokens': the array is empty", where);
  } else {
    query.text = object.get_string("text");
    if (query.text.empty()) fail(Exit::bad_data, "{}: key 'text': the text is empty", where);
  }
  if (object.has("answers"))
    query.answers = texts(object.get("answers"), where + ": key 'answers'");
  if (object.has("stop")) query.stop = texts(object.get("stop"), where + ": key 'stop'");
  query.form = form_of(object);
  query.max_new_tokens = object.find_int("max_new_tokens", 1, std::int64_t{1} << 20);
  return query;
}

Document parse_published(const JsonObject& json, std::int64_t line) {
  Document document;
  document.line = line;
  document.kind = DocumentKind::published;
  document.id = json.has("index") ? id_text(json.get("index"), json.where() + ": key 'index'")
                                  : std::to_string(line);
  document.context = json.get_string("input_context");
  Query query;
  query.id = "0";
  query.text = json.get_string("input_query");
  if (query.text.empty())
    fail(Exit::bad_data, "{}: key 'input_query': the text is empty", json.where());
  for (const char* key : {"outputs", "output"}) {
    if (json.has(key)) query.answers = texts(json.get(key), json.where() + ": key '" + key + "'");
  }
  document.queries.push_back(std::move(query));
  document.record = Json::object();
  for (const auto& [key, value] : json.json().items()) {
    if (key != "input_context") document.record[key] = value;
  }
  return document;
}

Json parse_line(std::string_view text, const std::string& where) {
  const std::string_view begin = text.substr(std::min(text.find_first_not_of(" \t"), text.size()));
  if (begin == "{" || begin == "[" || begin == "[{") {
    fail(Exit::bad_data,
         "{}: the line is only '{}': JSON over several lines? A whole document is expected in one "
         "line: 'jq -c . FILE' writes an object so, 'jq -c .[] FILE' the entries of an array",
         where, begin);
  }
  if (!begin.starts_with('{')) {
    fail(Exit::bad_data,
         "{}: expected a JSON object such as {{\"context\": \"...\", \"queries\": [\"...\"]}}, got "
         "a "
         "line that begins with '{}'",
         where, one_line(first_characters(begin, 20)));
  }
  // Within a text its quotes would be escaped. All fields of such a record come back in the output.
  if (text.find("\"input_context\"") != std::string_view::npos)
    return parse_json(text, where, {kMaxContextBytes, 60});
  return parse_json(text, where, kLimits);
}

}  // namespace

Document parse_document(std::string_view text, std::int64_t line, const std::string& where) {
  std::size_t bad = 0;
  if (!is_utf8(text, &bad)) fail(Exit::bad_data, "{}: not UTF-8 at byte {}", where, bad);
  const Json parsed = parse_line(text, where);
  const JsonObject json(parsed, where);
  if (json.has("custom_id") && json.has("body")) {
    fail(Exit::bad_data,
         "{}: a request of an OpenAI batch file; 'run', 'encode' and 'answer' read these, from a "
         "file that begins with one (no pipe: it is read twice)",
         where);
  }
  Document document;
  if (json.has("input_context")) {
    document = parse_published(json, line);
  } else {
    allow_keys(json, {"id", "context", "context_file", "context_tokens", "queries", "meta"});
    document.line = line;
    document.id =
        json.has("id") ? id_text(json.get("id"), where + ": key 'id'") : std::to_string(line);
    const int n_contexts =
        json.has("context") + json.has("context_file") + json.has("context_tokens");
    if (n_contexts != 1) {
      fail(Exit::bad_data,
           "{}: expected exactly one of 'context', 'context_file' and 'context_tokens', got {}",
           where, n_contexts);
    }
    document.context = json.find_string("context").value_or("");
    document.context_file = json.find_string("context_file").value_or("");
    if (json.has("context_tokens")) {
      document.context_tokens =
          token_ids(json.get("context_tokens"), where + ": key 'context_tokens'");
    }
    const Json& queries = json.get("queries");
    if (!queries.is_array() || queries.empty()) {
      fail(Exit::bad_data, "{}: key 'queries': expected an array with at least one query", where);
    }
    std::set<std::string> ids;
    for (const Json& query : queries) {
      document.queries.push_back(parse_query(query, document.queries.size(), where));
      if (!ids.insert(document.queries.back().id).second) {
        fail(Exit::bad_data, "{}: query id '{}' appears twice", where, document.queries.back().id);
      }
    }
  }
  const bool is_empty = document.context_tokens
                            ? document.context_tokens->empty()
                            : document.context.empty() && document.context_file.empty();
  if (is_empty)
    fail(Exit::bad_data, "{}: the context is empty: there is nothing to ask about", where);
  return document;
}

std::string readable_id(std::string_view text, std::int64_t line) {
  try {
    const Json json = parse_json(text, "", kLimits);
    for (const char* key : {"id", "index"}) {
      if (json.is_object() && json.contains(key)) return id_text(json[key], "");
    }
  } catch (const Error&) {
    // Not readable: the line number stands in.
  }
  return std::to_string(line);
}

std::string context_path(const Document& document, const std::string& input_path) {
  const bool absolute = document.context_file.starts_with('/');
  return absolute ? document.context_file
                  : parent_directory(input_path) + "/" + document.context_file;
}

std::string context_text(const Document& document, const std::string& input_path) {
  if (document.context_file.empty()) return document.context;
  const std::string path = context_path(document, input_path);
  struct stat info {};
  if (::stat(path.c_str(), &info) == 0 && !S_ISREG(info.st_mode)) {
    fail(Exit::no_input, "{}: expected a file with a text, got {}", path,
         S_ISDIR(info.st_mode) ? "a folder" : "a pipe or a device");
  }
  const std::string text = read_text(path, kMaxContextBytes);
  if (text.empty())
    fail(Exit::bad_data, "{}: the context is empty: there is nothing to ask about", path);
  return text;
}

}  // namespace starattn
