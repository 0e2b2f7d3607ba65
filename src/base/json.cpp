// SPDX-License-Identifier: Apache-2.0
#include "base/json.h"

#include <cmath>
#include <unordered_set>
#include <vector>

#include "base/error.h"
#include "base/file.h"

namespace starattn {
namespace {

// Builds the DOM through nlohmann's own parser and refuses depth and duplicate keys on the way.
class CheckedBuilder : public nlohmann::detail::json_sax_dom_parser<Json> {
  using Base = nlohmann::detail::json_sax_dom_parser<Json>;

 public:
  CheckedBuilder(Json& result, const std::string& where, int max_depth)
      : Base(result, /*allow_exceptions=*/false), where_(where), max_depth_(max_depth) {}

  bool start_object(std::size_t n) {
    enter();
    keys_.emplace_back();
    return Base::start_object(n);
  }
  bool end_object() {
    keys_.pop_back();
    --depth_;
    return Base::end_object();
  }
  bool start_array(std::size_t n) {
    enter();
    return Base::start_array(n);
  }
  bool end_array() {
    --depth_;
    return Base::end_array();
  }
  bool key(std::string& name) {
    if (!keys_.back().insert(name).second) {
      fail(Exit::bad_data, "{}: key '{}' appears twice in one object", where_, name);
    }
    return Base::key(name);
  }
  bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception& e) {
    fail(Exit::bad_data, "{}: not valid JSON at byte {}: {}", where_, position, e.what());
  }

 private:
  void enter() {
    if (++depth_ > max_depth_) {
      fail(Exit::bad_data, "{}: JSON nested deeper than {} levels", where_, max_depth_);
    }
  }

  const std::string& where_;
  int max_depth_;
  int depth_ = 0;
  std::vector<std::unordered_set<std::string>> keys_;
};

}  // namespace

Json parse_json(std::string_view text, const std::string& where, const JsonLimits& limits) {
  if (text.size() > limits.max_bytes) {
    fail(Exit::bad_data, "{}: {} bytes of JSON, at most {} are read", where, text.size(),
         limits.max_bytes);
  }
  Json result;
  CheckedBuilder builder(result, where, limits.max_depth);
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
    fail(Exit::bad_data, "{}: key '{}': expected a finite number, got {}", where_, key,
         value.type_name());
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
