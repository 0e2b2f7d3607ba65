// SPDX-License-Identifier: Apache-2.0
#include "base/json.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <unordered_set>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/file.h"
#include "base/text.h"

namespace starattn {
namespace {

constexpr std::size_t kQuoted = 40;  // bytes of the text in a message

// "line 3, column 7", or "column 7" in a text of one line. position: from 1.
std::string place_of(std::string_view text, std::size_t position) {
  const std::string_view before = text.substr(0, position == 0 ? 0 : position - 1);
  const auto line = 1 + std::count(before.begin(), before.end(), '\n');
  const std::size_t line_begin = before.find_last_of('\n') + 1;  // npos + 1 is 0
  const auto is_character = [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; };
  const auto column = 1 + std::count_if(before.begin() + static_cast<std::ptrdiff_t>(line_begin),
                                        before.end(), is_character);
  const std::size_t first_end = text.find('\n');
  if (first_end == std::string_view::npos || first_end + 1 == text.size())
    return fmt::format("column {}", column);
  return fmt::format("line {}, column {}", line, column);
}

std::string quoted(std::string_view text) {
  const std::string_view begin = first_characters(text, kQuoted);
  return fmt::format("'{}{}'", one_line(begin), begin.size() < text.size() ? "..." : "");
}

std::string what_stands_before(std::string_view text, std::size_t position) {
  const std::size_t end = std::min(position == 0 ? 0 : position - 1, text.size());
  std::size_t begin = end - std::min<std::size_t>(end, kQuoted / 2);
  while (begin < end && (static_cast<unsigned char>(text[begin]) & 0xc0) == 0x80) ++begin;
  const std::string_view before = text.substr(begin, end - begin);
  if (before.empty() || !is_utf8(before)) return "";
  return fmt::format(", behind {}", quoted(before));
}

// A word as people see it: what the library stumbled over may be its first or any later letter.
std::string_view word_at(std::string_view text, std::size_t position) {
  const auto is_inside = [&](std::size_t at) {
    const auto c = static_cast<unsigned char>(text[at]);
    return std::isalnum(c) != 0 || c == '_' || c >= 0x80;
  };
  std::size_t end = std::min(position, text.size());
  std::size_t begin = end == 0 ? 0 : end - 1;
  while (begin > 0 && is_inside(begin - 1)) --begin;
  if (end > begin && is_inside(end - 1)) {
    while (end < text.size() && is_inside(end)) ++end;
  } else if (end > begin + 1) {
    --end;  // what stands behind the word
  }
  return text.substr(begin, end - begin);
}

// From 1. position: where the library has read to; token: of a text or a number, what it has read.
std::size_t begin_of_token(std::string_view text, std::size_t position, std::string_view token,
                           std::string_view message) {
  const auto says = [&](std::string_view part) {
    return message.find(part) != std::string_view::npos;
  };
  if (says("invalid literal"))
    return static_cast<std::size_t>(word_at(text, position).data() - text.data()) + 1;
  const bool is_whole = says("unexpected string") || says("unexpected number") ||
                        says("invalid string") || says("invalid number");
  const bool stands_there = !token.empty() && token.size() <= position && position <= text.size() &&
                            text.substr(position - token.size(), token.size()) == token;
  return is_whole && stands_there ? position - token.size() + 1 : position;
}

// The library's names of what it meets.
std::string plain_token(std::string_view name) {
  static constexpr std::pair<std::string_view, std::string_view> kNames[] = {
      {"end of input", "the end of the text"},
      {"string literal", "text in double quotes"},
      {"number literal", "a number"},
      {"true literal", "true"},
      {"false literal", "false"},
      {"null literal", "null"},
      {"'[', '{', or a literal", "a value"},
      {"'}'", "',' or '}'"},
      {"']'", "',' or ']'"}};
  for (const auto& [theirs, ours] : kNames)
    if (name == theirs) return std::string(ours);
  return std::string(name);
}

// "[json.exception.parse_error.101] parse error at line 1, column 9: syntax error while parsing
// object separator - unexpected string literal; expected ':'" in plain words. word: where it
// stumbled.
std::string plain_reason(std::string_view message, std::string_view word) {
  constexpr std::string_view kDash = " - ";
  const std::size_t dash = message.find(kDash);
  if (dash == std::string_view::npos) return std::string(message.substr(message.find("] ") + 2));
  std::string_view reason = message.substr(dash + kDash.size());
  const std::size_t semicolon = reason.rfind("; expected ");
  std::string expected;
  if (semicolon != std::string_view::npos) {
    expected = plain_token(reason.substr(semicolon + 11));
    reason = reason.substr(0, semicolon);
  }
  constexpr std::string_view kUnexpected = "unexpected ";
  if (reason.starts_with(kUnexpected)) {
    reason.remove_prefix(kUnexpected.size());
    const std::string got =
        reason == "'}'" || reason == "']'" ? std::string(reason) : plain_token(reason);
    if (expected.empty()) expected = "a value";
    if (expected == "the end of the text") expected = "nothing behind the value";
    return fmt::format("expected {}, got {}", expected, got);
  }
  const std::size_t read = reason.find("; last read: '");
  if (read == std::string_view::npos) return std::string(reason);
  std::string_view last = reason.substr(read + 14);
  last.remove_suffix(last.ends_with('\'') ? 1 : 0);
  reason = reason.substr(0, read);
  if (reason == "invalid literal")
    return fmt::format("{} is no JSON; text goes in double quotes", quoted(word));
  if (reason.find("surrogate") != std::string_view::npos)
    return "half a character: \\ud800 to \\udbff goes with \\udc00 to \\udfff behind it";
  return fmt::format("{}, got {}", reason, quoted(last));
}

// Builds the document and refuses depth, numbers of values and duplicate keys on the way.
// nlohmann's own builder looks through all earlier members for each new key: 19 s for the 128,000
// of a tokenizer's vocabulary.
class CheckedBuilder : public nlohmann::json_sax<Json> {
 public:
  CheckedBuilder(Json& result, std::string_view text, const std::string& where,
                 const JsonLimits& limits)
      : result_(result), text_(text), where_(where), limits_(limits) {}

  bool null() override { return put(nullptr); }
  bool boolean(bool value) override { return put(value); }
  bool number_integer(number_integer_t value) override { return put(value); }
  bool number_unsigned(number_unsigned_t value) override { return put(value); }
  bool number_float(number_float_t value, const string_t&) override { return put(value); }
  bool string(string_t& value) override { return put(std::move(value)); }
  bool binary(binary_t&) override { return false; }  // no text holds any

  bool start_object(std::size_t) override {
    if (ignores_container()) return true;
    keys_.emplace_back();
    return enter(Json::object());
  }
  bool end_object() override {
    if (n_ignored_open_ == 0) keys_.pop_back();
    return leave();
  }
  bool start_array(std::size_t) override { return ignores_container() || enter(Json::array()); }
  bool end_array() override { return leave(); }

  bool key(string_t& name) override {
    if (n_ignored_open_ > 0) return true;
    ignores_next_ = !limits_.ignored_key.empty() && name == limits_.ignored_key &&
                    open_.size() <= static_cast<std::size_t>(limits_.ignored_depth);
    if (!keys_.back().insert(name).second) {
      fail(Exit::bad_data, "{}: key '{}' appears twice in one object", where_, name.substr(0, 80));
    }
    auto& members = open_.back()->get_ref<Json::object_t&>();
    members.emplace_back(std::move(name), nullptr);
    member_ = &members.back().second;
    return true;
  }
  bool parse_error(std::size_t position, const std::string& token,
                   const nlohmann::detail::exception& e) override {
    const std::size_t begin = begin_of_token(text_, position, token, e.what());
    fail(Exit::bad_data, "{}: not valid JSON at {}: {}", where_, place_of(text_, begin),
         plain_reason(e.what(), word_at(text_, position)) + what_stands_before(text_, begin));
  }

 private:
  // Where the next value goes: the document itself, behind an array's last, or at the key just
  // read.
  Json& slot() {
    if (++n_values_ > limits_.max_values)
      fail(Exit::bad_data, "{}: JSON of more than {} values", where_, limits_.max_values);
    if (open_.empty()) return result_;
    if (open_.back()->is_object()) return *member_;
    return open_.back()->get_ref<Json::array_t&>().emplace_back();
  }
  template <typename Value>
  bool put(Value&& value) {
    if (n_ignored_open_ > 0 || std::exchange(ignores_next_, false)) return true;
    slot() = Json(std::forward<Value>(value));
    return true;
  }
  bool enter(Json container) {
    if (open_.size() >= static_cast<std::size_t>(limits_.max_depth)) {
      fail(Exit::bad_data, "{}: JSON nested deeper than {} levels", where_, limits_.max_depth);
    }
    Json& place = slot();
    place = std::move(container);
    open_.push_back(&place);
    return true;
  }
  bool leave() {
    if (n_ignored_open_ > 0) {
      --n_ignored_open_;
    } else {
      open_.pop_back();
    }
    return true;
  }
  bool ignores_container() {
    const bool ignores = n_ignored_open_ > 0 || std::exchange(ignores_next_, false);
    if (ignores) ++n_ignored_open_;
    return ignores;
  }

  Json& result_;
  std::string_view text_;
  const std::string& where_;
  const JsonLimits& limits_;
  std::size_t n_values_ = 0;
  std::vector<Json*> open_;  // a container does not move while a value inside it is read
  Json* member_ = nullptr;   // of the innermost object: its newest
  std::vector<std::unordered_set<std::string>> keys_;  // of each open object
  bool ignores_next_ = false;                          // the value of the key just read
  std::size_t n_ignored_open_ = 0;                     // containers inside what is ignored
};

}  // namespace

Json parse_json(std::string_view text, const std::string& where, const JsonLimits& limits) {
  if (text.size() > limits.max_bytes) {
    fail(Exit::bad_data, "{}: {} bytes of JSON, at most {} are read", where, text.size(),
         limits.max_bytes);
  }
  if (text.starts_with(kByteOrderMark)) text.remove_prefix(kByteOrderMark.size());
  Json result;
  CheckedBuilder builder(result, text, where, limits);
  Json::sax_parse(text.begin(), text.end(), &builder);
  return result;
}

Json read_json_file(const std::string& path, const JsonLimits& limits) {
  return parse_json(read_file(path, limits.max_bytes), path, limits);
}

JsonObject::JsonObject(const Json& object, std::string where)
    : object_(&object), where_(std::move(where)) {
  if (!object.is_object()) {
    fail(Exit::bad_data, "{}: expected an object, got {}", where_, object.type_name());
  }
}

bool JsonObject::has(const char* key) const {
  const auto it = object_->find(key);
  return it != object_->end() && !it->is_null();
}

const Json& JsonObject::get(const char* key) const {
  if (!has(key)) fail(Exit::bad_data, "{}: key '{}' is missing", where_, key);
  return *object_->find(key);
}

JsonObject JsonObject::get_object(const char* key) const {
  return {get(key), fmt::format("{}: key '{}'", where_, key)};
}

std::string JsonObject::get_string(const char* key) const {
  const Json& value = get(key);
  if (!value.is_string()) {
    fail(Exit::bad_data, "{}: key '{}': expected a string, got {}", where_, key, value.type_name());
  }
  return value.get<std::string>();
}

std::int64_t JsonObject::get_int(const char* key, std::int64_t min, std::int64_t max) const {
  const Json& value = get(key);
  if (!value.is_number_integer() ||
      (value.is_number_unsigned() && value.get<std::uint64_t>() > std::uint64_t{INT64_MAX})) {
    fail(Exit::bad_data, "{}: key '{}': expected an integer from {} to {}, got {}", where_, key,
         min, max, value.dump(-1, ' ', true, Json::error_handler_t::replace).substr(0, 80));
  }
  const auto number = value.get<std::int64_t>();
  if (number < min || number > max) {
    fail(Exit::bad_data, "{}: key '{}': expected an integer from {} to {}, got {}", where_, key,
         min, max, number);
  }
  return number;
}

double JsonObject::get_number(const char* key) const {
  const Json& value = get(key);
  if (!value.is_number() || !std::isfinite(value.get<double>())) {
    const std::string got =
        value.is_string() ? quoted(value.get<std::string_view>()) : value.type_name();
    fail(Exit::bad_data, "{}: key '{}': expected a finite number, got {}", where_, key, got);
  }
  return value.get<double>();
}

bool JsonObject::get_bool(const char* key) const {
  const Json& value = get(key);
  if (!value.is_boolean()) {
    fail(Exit::bad_data, "{}: key '{}': expected true or false, got {}", where_, key,
         value.type_name());
  }
  return value.get<bool>();
}

std::optional<std::string> JsonObject::find_string(const char* key) const {
  return has(key) ? std::optional(get_string(key)) : std::nullopt;
}

std::optional<std::int64_t> JsonObject::find_int(const char* key, std::int64_t min,
                                                 std::int64_t max) const {
  return has(key) ? std::optional(get_int(key, min, max)) : std::nullopt;
}

std::optional<double> JsonObject::find_number(const char* key) const {
  return has(key) ? std::optional(get_number(key)) : std::nullopt;
}

std::optional<bool> JsonObject::find_bool(const char* key) const {
  return has(key) ? std::optional(get_bool(key)) : std::nullopt;
}

std::string to_line(const Json& value) {
  return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace starattn
