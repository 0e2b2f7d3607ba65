// SPDX-License-Identifier: Apache-2.0
// Reading JSON that nobody vouches for: depth and size limited, duplicate keys refused, types
// checked. Every error names the file (or line) and the key.
#pragma once

#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

namespace starattn {

using Json = nlohmann::ordered_json;  // keeps the order in which keys were written

struct JsonLimits {
  std::size_t max_bytes = std::size_t{1} << 30;
  int max_depth = 64;
  std::size_t max_values = SIZE_MAX;  // each takes up to 200 bytes of memory, one byte of text
  std::string_view ignored_key = {};  // what it names is not kept and not limited
  int ignored_depth = 64;             // in objects and arrays within up to so many, itself counted
};

// where: what the text is, for messages ("config.json", "input.jsonl:17").
// Throws Error(bad_data) in plain words, with line and column, on malformed text, duplicate keys,
// or beyond a limit. A byte order mark in front is skipped.
Json parse_json(std::string_view text, const std::string& where, const JsonLimits& limits = {});
Json read_json_file(const std::string& path, const JsonLimits& limits = {});  // no_input if missing

// Typed access to an object's members. `where` goes in front of messages.
// get_*: throws Error(bad_data) when absent or of another type. find_*: nullopt when absent or
// null.
class JsonObject {
 public:
  JsonObject(const Json& object, std::string where);  // throws when it is not an object

  bool has(const char* key) const;  // present and not null
  const Json& get(const char* key) const;
  JsonObject get_object(const char* key) const;

  std::string get_string(const char* key) const;
  std::int64_t get_int(const char* key, std::int64_t min, std::int64_t max) const;
  double get_number(const char* key) const;  // finite
  bool get_bool(const char* key) const;

  std::optional<std::string> find_string(const char* key) const;
  std::optional<std::int64_t> find_int(const char* key, std::int64_t min, std::int64_t max) const;
  std::optional<double> find_number(const char* key) const;
  std::optional<bool> find_bool(const char* key) const;

  const std::string& where() const { return where_; }
  const Json& json() const { return *object_; }

 private:
  const Json* object_;
  std::string where_;
};

// One line of JSON text; invalid UTF-8 is replaced, NaN is never written.
std::string to_line(const Json& value);

}  // namespace starattn
