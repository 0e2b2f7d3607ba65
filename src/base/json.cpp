// SPDX-License-Identifier: Apache-2.0
#include "base/json.h"

#include <cmath>
#include <unordered_set>
#include <vector>

#include "base/error.h"
#include "base/file.h"

namespace starattn {
namespace {

// Builds the document and refuses depth, numbers of values and duplicate keys on the way.
// nlohmann's own builder looks through all earlier members for each new key: 19 s for the 128,000
// of a tokenizer's vocabulary.
class CheckedBuilder : public nlohmann::json_sax<Json> {
 public:
  CheckedBuilder(Json& result, const std::string& where, const JsonLimits& limits)
      : result_(result), where_(where), limits_(limits) {}

  bool null() override { return put(nullptr); }
  bool boolean(bool value) override { return put(value); }
  bool number_integer(number_integer_t value) override { return put(value); }
  bool number_unsigned(number_unsigned_t value) override { return put(value); }
  bool number_float(number_float_t value, const string_t&) override { return put(value); }
  bool string(string_t& value) override { return put(std::move(value)); }
  bool binary(binary_t&) override { return false; }  // no text holds any

  bool start_object(std::size_t) override {
    keys_.emplace_back();
    return enter(Json::object());
  }
  bool end_object() override {
    keys_.pop_back();
    return leave();
  }
  bool start_array(std::size_t) override { return enter(Json::array()); }
  bool end_array() override { return leave(); }

  bool key(string_t& name) override {
    if (!keys_.back().insert(name).second) {
      fail(Exit::bad_data, "{}: key '{}' appears twice in one object", where_, name.substr(0, 80));
    }
    auto& members = open_.back()->get_ref<Json::object_t&>();
    members.emplace_back(std::move(name), nullptr);
    member_ = &members.back().second;
    return true;
  }
  bool parse_error(std::size_t position, const std::string&,
                   const nlohmann::detail::exception& e) override {
    fail(Exit::bad_data, "{}: not valid JSON at byte {}: {}", where_, position, e.what());
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
    open_.pop_back();
    return true;
  }

  Json& result_;
  const std::string& where_;
  const JsonLimits& limits_;
  std::size_t n_values_ = 0;
  std::vector<Json*> open_;  // a container does not move while a value inside it is read
  Json* member_ = nullptr;   // of the innermost object: its newest
  std::vector<std::unordered_set<std::string>> keys_;  // of each open object
};

}  // namespace

Json parse_json(std::string_view text, const std::string& where, const JsonLimits& limits) {
  if (text.size() > limits.max_bytes) {
    fail(Exit::bad_data, "{}: {} bytes of JSON, at most {} are read", where, text.size(),
         limits.max_bytes);
  }
  Json result;
  CheckedBuilder builder(result, where, limits);
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
