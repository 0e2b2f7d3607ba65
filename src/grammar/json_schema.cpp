// SPDX-License-Identifier: Apache-2.0
#include "grammar/json_schema.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/json.h"
#include "base/text.h"
#include "grammar/code_points.h"
#include "grammar/json_text.h"
#include "grammar/regex.h"
#include "grammar/schema_exclusion.h"
#include "grammar/schema_place.h"
#include "grammar/string_format.h"

namespace starattn {
namespace {

constexpr JsonLimits kLimits{std::size_t{1} << 20, 64, 100'000};
constexpr double kMostCount = 4e9;
constexpr std::size_t kMostAlternatives = 100;  // of oneOf

// Keywords that change nothing about an answer.
const SchemaKeys kAnnotations = {
    "title",     "description", "default", "examples", "example", "deprecated",  "readOnly",
    "writeOnly", "$comment",    "$schema", "$id",      "$defs",   "definitions", "discriminator"};

std::string_view type_of(const Json& value) {
  if (value.is_null()) return "null";
  if (value.is_boolean()) return "boolean";
  if (value.is_number_integer()) return "integer";
  if (value.is_number()) return "number";
  return value.is_string() ? "string" : value.is_array() ? "array" : "object";
}

class SchemaParser {
 public:
  SchemaParser(Expressions& in, const Schema& schema) : in_(in), schema_(schema) {}

  Expression parse() {
    const SchemaPlace root = schema_.root();
    const Expression e = value(root, kMostReferences);
    if (e == kNoText) {
      schema_.refuse(root,
                     fmt::format("no answer is possible: a part refers to itself without end, more "
                                 "than {} references deep, or its bounds leave nothing",
                                 kMostReferences));
    }
    return e;
  }

 private:
  // kNoText where nothing matches, as behind too many references.
  Expression value(const SchemaPlace& place, int n_references) {
    const auto key = std::pair(place.json, n_references);
    if (const auto known = known_.find(key); known != known_.end()) return known->second;
    const Expression e = new_value(place, n_references);
    known_[key] = e;
    return e;
  }

  Expression new_value(const SchemaPlace& place, int n_references) {
    const Json& schema = *place.json;
    if (schema.is_boolean() && schema.get<bool>()) return any_value();
    if (!schema.is_object()) {
      schema_.refuse(place, fmt::format("expected a schema, an object, got {}",
                                        schema.is_boolean() ? "false" : schema.type_name()));
    }
    if (schema.contains("$ref")) return reference(place, n_references);
    if (schema.contains("const") || schema.contains("enum")) return constants(place);
    for (const char* key : {"anyOf", "oneOf", "allOf"})
      if (schema.contains(key)) return combination(place, key, n_references);
    const std::vector<std::string> types = schema_.types_of(place);
    check_keys(place, types);
    if (types.empty()) return any_value();
    std::vector<Expression> ways;
    for (const std::string& type : types) ways.push_back(of_type(place, type, n_references));
    return in_.either(std::move(ways));
  }

  Expression any_value() {
    if (any_value_ == kNoText) any_value_ = any_json_value(in_);
    return any_value_;
  }

  // Keys that stand beside one that says it all.
  void check_alone(const SchemaPlace& place, const SchemaKeys& own) const {
    for (const auto& [key, value] : place.json->items()) {
      if (is_one_of(own, key) || is_one_of(kAnnotations, key)) continue;
      schema_.refuse(place,
                     fmt::format("keyword '{}' beside '{}' is not supported; put it inside of that",
                                 one_line(key.substr(0, 80)), own[0]));
    }
  }

  void check_keys(const SchemaPlace& place, const std::vector<std::string>& types) const {
    SchemaKeys keys = kAnnotations;
    keys.emplace_back("type");
    const auto add = [&](const SchemaKeys& more) {
      keys.insert(keys.end(), more.begin(), more.end());
    };
    for (const std::string& type : types) add(schema_keys_of(type));
    for (const auto& member : place.json->items()) {
      const std::string& key = member.key();
      if (is_one_of(keys, key)) continue;
      const bool is_known = std::ranges::any_of(kTypesWithKeys, [&](std::string_view type) {
        return is_one_of(schema_keys_of(type), key);
      });
      if (is_known) {
        schema_.refuse(place, fmt::format("keyword '{}' says nothing about type {}; leave it out",
                                          key, fmt::join(types, " or ")));
      }
      schema_.refuse(place,
                     fmt::format("keyword '{}' is not supported; leave it out, or describe the "
                                 "answer without it",
                                 one_line(key.substr(0, 80))));
    }
  }

  Expression of_type(const SchemaPlace& place, const std::string& type, int n_references) {
    if (type == "null") return in_.text("null");
    if (type == "boolean") return in_.any_of_texts({"true", "false"});
    if (type == "integer" || type == "number") return number(place, type == "integer");
    if (type == "string") return string(place);
    return type == "array" ? array(place, n_references) : object(place, n_references);
  }

  // --- the keywords of each type -----------------------------------------------------------------

  std::uint32_t count(const SchemaPlace& place, const char* key, std::uint32_t absent) const {
    if (!place.has(key)) return absent;
    const Json& json = *place.at(key).json;
    const double n = json.is_number() ? json.get<double>() : -1;
    if (n < 0 || std::floor(n) != n) {
      schema_.refuse(place.at(key), fmt::format("expected a whole number from 0, got {}",
                                                first_characters(to_line(json), 80)));
    }
    if (n <= kMostCount) return static_cast<std::uint32_t>(n);
    if (absent == Expressions::kNoLimit) return absent;  // no answer is so long
    schema_.refuse(place.at(key), "no answer is so long");
  }

  std::pair<std::uint32_t, std::uint32_t> counts(const SchemaPlace& place, const char* min_key,
                                                 const char* max_key) const {
    const std::uint32_t min = count(place, min_key, 0);
    const std::uint32_t max = count(place, max_key, Expressions::kNoLimit);
    if (min > max) schema_.refuse(place, fmt::format("'{}' is more than '{}'", min_key, max_key));
    return {min, max};
  }

  Expression string(const SchemaPlace& place) {
    const auto [min, max] = counts(place, "minLength", "maxLength");
    const bool has_length = place.has("minLength") || place.has("maxLength");
    const bool has_pattern = place.has("pattern");
    if (has_pattern + place.has("format") + has_length > 1) {
      schema_.refuse(
          place,
          "only one of a length, 'pattern' and 'format' can be heeded; a pattern can say the "
          "length, as ^[a-z]{2,5}$ does");
    }
    if (!has_pattern && !place.has("format"))
      return json_string(in_, any_json_character(in_), min, max);
    const SchemaPlace at = place.at(has_pattern ? "pattern" : "format");
    if (!at.json->is_string())
      schema_.refuse(at, fmt::format("expected a string, got {}", at.json->type_name()));
    const std::string said = at.json->get<std::string>();
    const std::string regex = has_pattern ? said : format(at, said);
    const Expression text = parse_regex(in_, regex, RegexUse::pattern, schema_.name_of(at));
    return in_.sequence({in_.text("\""), text, in_.text("\"")});
  }

  std::string format(const SchemaPlace& place, const std::string& name) const {
    if (const std::optional<std::string> regex = regex_of_format(name)) return *regex;
    schema_.refuse(place,
                   fmt::format("of the formats date, time, date-time, ipv4, uuid and email are "
                               "supported, got '{}'; leave it out, or write a 'pattern'",
                               one_line(name.substr(0, 80))));
  }

  Expression number(const SchemaPlace& place, bool is_integer) {
    const auto bound = [&](const char* key) -> std::optional<double> {
      if (!place.has(key)) return std::nullopt;
      const Json& json = *place.at(key).json;
      if (!json.is_number()) {
        schema_.refuse(place.at(key), fmt::format("expected a number, got {}", json.type_name()));
      }
      return json.get<double>();
    };
    const std::optional<double> low = bound("minimum");
    const std::optional<double> high = bound("maximum");
    const std::optional<double> above = bound("exclusiveMinimum");
    const std::optional<double> below = bound("exclusiveMaximum");
    NumberBounds bounds{low, high};
    if (above && (!low || *above >= *low)) {
      bounds.low = above;
      bounds.excludes_low = true;
    }
    if (below && (!high || *below <= *high)) {
      bounds.high = below;
      bounds.excludes_high = true;
    }
    if (!bounds.low && !bounds.high) return is_integer ? json_integer(in_) : json_number(in_);
    const Expression e =
        is_integer ? json_integer_within(in_, bounds) : json_number_within(in_, bounds);
    if (e == kNoText) schema_.refuse(place, "no number of up to 15 digits is within these bounds");
    return e;
  }

  Expression array(const SchemaPlace& place, int n_references) {
    const auto [min, max] = counts(place, "minItems", "maxItems");
    if (place.has("uniqueItems") && *place.at("uniqueItems").json != Json(false))
      schema_.refuse(place.at("uniqueItems"), "nothing but false is supported; leave it out");
    std::vector<Expression> first;
    const bool has_first = place.has("prefixItems");
    if (has_first) {
      const SchemaPlace items = place.at("prefixItems");
      if (!items.json->is_array()) schema_.refuse(items, "expected an array of schemas");
      for (std::size_t i = 0; i < items.json->size(); ++i)
        first.push_back(value(items.at(i), n_references));
    }
    Expression others = has_first ? kNoText : any_value();  // none behind the first, but if said
    if (place.has("items")) {
      const SchemaPlace items = place.at("items");
      others = *items.json == Json(false) ? kNoText : value(items, n_references);
    }
    return json_array(in_, first, others, min, max);
  }

  Expression object(const SchemaPlace& place, int n_references) {
    std::vector<JsonMember> members;
    if (place.has("properties")) {
      const SchemaPlace properties = place.at("properties");
      if (!properties.json->is_object())
        schema_.refuse(properties, "expected an object of schemas");
      for (const auto& [name, schema] : properties.json->items())
        members.push_back({name, value(properties.member(name, schema), n_references)});
    }
    for (const std::string& name : schema_.required_of(place)) {
      const auto member = std::ranges::find(members, name, &JsonMember::name);
      if (member == members.end()) {
        schema_.refuse(place.at("required"), fmt::format("'{}' is not among the 'properties'",
                                                         one_line(name.substr(0, 80))));
      }
      member->is_required = true;
    }
    constexpr std::ptrdiff_t kMostOptional = 1000;
    if (std::ranges::count(members, false, &JsonMember::is_required) > kMostOptional) {
      schema_.refuse(place,
                     fmt::format("at most {} properties may be left out; say with 'required' which "
                                 "may not",
                                 kMostOptional));
    }
    constexpr std::size_t kLongestName = 1000;  // bytes
    for (const JsonMember& member : members) {
      if (member.name.size() > kLongestName)
        schema_.refuse(place, fmt::format("names have up to {} bytes", kLongestName));
    }
    // Others where they are asked for, and where nothing else is.
    Expression other = members.empty() ? any_value() : kNoText;
    if (place.has("additionalProperties")) {
      const SchemaPlace others = place.at("additionalProperties");
      other = *others.json == Json(false) ? kNoText : value(others, n_references);
    }
    return json_object(in_, members, other);
  }

  // --- what stands for a whole schema ------------------------------------------------------------

  // A number of more than 64 bits would be written as the nearest one that a double has.
  void refuse_inexact(const SchemaPlace& place, const Json& value) const {
    constexpr double kBeyond = 9.2e18;
    if (value.is_structured()) {
      for (const Json& inner : value) refuse_inexact(place, inner);
    } else if (value.is_number_float() && std::abs(value.get<double>()) > kBeyond) {
      schema_.refuse(place,
                     fmt::format("{} is beyond 64 bits, so it cannot be written exactly; make it a "
                                 "string",
                                 to_line(value)));
    }
  }

  Expression constants(const SchemaPlace& place) {
    const char* key = place.has("const") ? "const" : "enum";
    check_alone(place, {key, "type"});
    const Json& said = *place.at(key).json;
    const bool is_enum = !place.has("const");
    if (is_enum && (!said.is_array() || said.empty()))
      schema_.refuse(place.at(key), "expected an array with at least one value");
    const std::vector<std::string> types = schema_.types_of(place);
    std::vector<std::string> texts;
    for (const Json& value : is_enum ? said : Json::array({said})) {
      const std::string_view type = type_of(value);
      const bool fits = types.empty() || std::ranges::find(types, type) != types.end() ||
                        (type == "integer" && std::ranges::find(types, "number") != types.end());
      if (fits) {
        refuse_inexact(place.at(key), value);
        texts.push_back(to_line(value));
      }
    }
    if (texts.empty())
      schema_.refuse(place.at(key),
                     fmt::format("no value is of type {}", fmt::join(types, " or ")));
    return in_.any_of_texts(std::move(texts));
  }

  Expression reference(const SchemaPlace& place, int n_references) {
    check_alone(place, {"$ref"});
    const SchemaPlace there = schema_.referred(place);
    return n_references == 0 ? kNoText : value(there, n_references - 1);
  }

  Expression combination(const SchemaPlace& place, const char* key, int n_references) {
    check_alone(place, {key});
    const SchemaPlace schemas = place.at(key);
    if (!schemas.json->is_array() || schemas.json->empty())
      schema_.refuse(schemas, "expected an array with at least one schema");
    const std::size_t n = schemas.json->size();
    if (key == std::string_view("allOf") && n > 1)
      schema_.refuse(schemas,
                     "nothing but a single schema is supported; write what they say together");
    const bool is_one_of = key == std::string_view("oneOf");
    if (is_one_of && n > kMostAlternatives)
      schema_.refuse(schemas, fmt::format("at most {} alternatives are compared; write anyOf",
                                          kMostAlternatives));
    std::vector<Expression> ways;
    for (std::size_t i = 0; i < n; ++i) {
      ways.push_back(value(schemas.at(i), n_references));
      for (std::size_t k = 0; is_one_of && k < i; ++k) {
        if (!exclude_each_other(schema_, schemas.at(k), schemas.at(i))) {
          schema_.refuse(schemas,
                         fmt::format("alternatives {} and {} could both match; where that does "
                                     "not matter, write anyOf",
                                     k, i));
        }
      }
    }
    return in_.either(std::move(ways));
  }

  Expressions& in_;
  const Schema& schema_;
  Expression any_value_ = kNoText;
  std::map<std::pair<const Json*, int>, Expression> known_;
};

}  // namespace

Expression parse_json_schema(Expressions& in, std::string_view schema, const std::string& where) {
  const Json root = parse_json(schema, where, kLimits);
  return SchemaParser(in, Schema(root, where)).parse();
}

}  // namespace starattn
