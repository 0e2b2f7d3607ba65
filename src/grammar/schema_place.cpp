// SPDX-License-Identifier: Apache-2.0
#include "grammar/schema_place.h"

#include <algorithm>

#include "base/text.h"

namespace starattn {
namespace {

const SchemaKeys kTypes = {"null", "boolean", "integer", "number", "string", "array", "object"};

const SchemaKeys kOfStrings = {"minLength", "maxLength", "pattern", "format"};
const SchemaKeys kOfNumbers = {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"};
const SchemaKeys kOfArrays = {"items", "prefixItems", "minItems", "maxItems", "uniqueItems"};
const SchemaKeys kOfObjects = {"properties", "required", "additionalProperties"};

// A name as a part of a JSON pointer (RFC 6901).
std::string pointer_part(std::string_view name) {
  std::string part;
  for (const char c : name.substr(0, 80))
    part += c == '~' ? "~0" : c == '/' ? "~1" : std::string(1, c);
  return "/" + one_line(part);
}

}  // namespace

bool is_one_of(const SchemaKeys& keys, std::string_view key) {
  return std::ranges::find(keys, key) != keys.end();
}

const SchemaKeys& schema_keys_of(std::string_view type) {
  static const SchemaKeys kNone;
  if (type == "string") return kOfStrings;
  if (type == "number" || type == "integer") return kOfNumbers;
  return type == "array" ? kOfArrays : type == "object" ? kOfObjects : kNone;
}

SchemaPlace SchemaPlace::at(std::string_view key) const {
  return member(key, (*json)[std::string(key)]);
}

SchemaPlace SchemaPlace::member(std::string_view key, const Json& value) const {
  return {&value, pointer + pointer_part(key)};
}

void Schema::refuse(const SchemaPlace& place, const std::string& why) const {
  fail(Exit::bad_data, "{}: {}", name_of(place), why);
}

std::vector<std::string> Schema::types_of(const SchemaPlace& place) const {
  std::vector<std::string> types;
  if (!place.has("type")) {
    for (const std::string_view type : kTypesWithKeys) {
      const bool is_meant = std::ranges::any_of(
          schema_keys_of(type), [&](std::string_view key) { return place.has(key); });
      if (is_meant) types.emplace_back(type);
    }
    return types;
  }
  const Json& type = *place.at("type").json;
  for (const Json& one : type.is_array() ? type : Json::array({type})) {
    if (!one.is_string() || !is_one_of(kTypes, one.get<std::string>())) {
      refuse(place.at("type"),
             fmt::format("expected one of {}, or an array of them, got {}", fmt::join(kTypes, ", "),
                         first_characters(to_line(type), 80)));
    }
    types.push_back(one.get<std::string>());
  }
  if (types.empty()) refuse(place.at("type"), "the array is empty");
  return types;
}

std::vector<std::string> Schema::required_of(const SchemaPlace& place) const {
  std::vector<std::string> names;
  if (!place.has("required")) return names;
  const SchemaPlace required = place.at("required");
  if (!required.json->is_array()) refuse(required, "expected an array of names");
  for (const Json& name : *required.json) {
    if (!name.is_string()) refuse(required, "expected an array of names");
    names.push_back(name.get<std::string>());
  }
  return names;
}

SchemaPlace Schema::referred(const SchemaPlace& place) const {
  const SchemaPlace at = place.at("$ref");
  if (!at.json->is_string()) refuse(at, "expected a string");
  const std::string pointer = at.json->get<std::string>();
  if (!pointer.starts_with('#') || (pointer.size() > 1 && pointer[1] != '/')) {
    refuse(at, fmt::format("expected a place in this schema such as #/$defs/name, got '{}'",
                           one_line(pointer.substr(0, 80))));
  }
  try {
    const Json::json_pointer path(pointer.substr(1));
    return {&root_.at(path), pointer.substr(1, 200)};
  } catch (const Json::exception&) {
    refuse(at, fmt::format("there is no '{}'", one_line(pointer.substr(0, 80))));
  }
}

}  // namespace starattn
