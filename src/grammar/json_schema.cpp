// SPDX-License-Identifier: Apache-2.0
#include "grammar/json_schema.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/json.h"
#include "base/text.h"
#include "grammar/code_points.h"
#include "grammar/json_text.h"
#include "grammar/regex.h"

namespace starattn {
namespace {

constexpr JsonLimits kLimits{std::size_t{1} << 20, 64, 100'000};
constexpr int kMostReferences = 24;  // $ref within each other; beyond them nothing matches
constexpr double kMostCount = 4e9;
constexpr std::size_t kMostAlternatives = 100;  // of oneOf

using Keys = std::vector<std::string_view>;

const Keys kTypes = {"null", "boolean", "integer", "number", "string", "array", "object"};

// Keywords that change nothing about an answer.
const Keys kAnnotations = {"title",      "description", "default",     "examples",     "example",
                           "deprecated", "readOnly",    "writeOnly",   "$comment",     "$schema",
                           "$id",        "$defs",       "definitions", "discriminator"};
const Keys kOfStrings = {"minLength", "maxLength", "pattern", "format"};
const Keys kOfNumbers = {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"};
const Keys kOfArrays = {"items", "prefixItems", "minItems", "maxItems", "uniqueItems"};
const Keys kOfObjects = {"properties", "required", "additionalProperties"};

// What strings of a format look like (RFC 3339, RFC 4122); nothing for others.
std::optional<std::string> regex_of_format(std::string_view name) {
  const std::string leap = "(\\d\\d(0[48]|[2468][048]|[13579][26])|([02468][048]|[13579][26])00)";
  const std::string date =
      "(\\d{4}-((0[13578]|1[02])-(0[1-9]|[12]\\d|3[01])|(0[469]|11)-(0[1-9]|[12]\\d|30)|"
      "02-(0[1-9]|1\\d|2[0-8]))|" +
      leap + "-02-29)";
  const std::string hours = "([01]\\d|2[0-3]):[0-5]\\d";
  const std::string time = hours + ":[0-5]\\d(\\.\\d{1,6})?(Z|[+-]" + hours + ")";
  const std::string octet = "(25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)";
  if (name == "date") return "^" + date + "$";
  if (name == "time") return "^" + time + "$";
  if (name == "date-time") return "^" + date + "T" + time + "$";
  if (name == "ipv4") return "^(" + octet + "\\.){3}" + octet + "$";
  if (name == "uuid") return "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$";
  if (name == "email")
    return "^[A-Za-z0-9_+-]+(\\.[A-Za-z0-9_+-]+)*@[A-Za-z0-9]+(-[A-Za-z0-9]+)*"
           "(\\.[A-Za-z0-9]+(-[A-Za-z0-9]+)*)+$";
  return std::nullopt;
}

bool is_one_of(const Keys& keys, std::string_view key) {
  return std::ranges::find(keys, key) != keys.end();
}

// A name as a part of a JSON pointer (RFC 6901).
std::string pointer_part(std::string_view name) {
  std::string part;
  for (const char c : name.substr(0, 80))
    part += c == '~' ? "~0" : c == '/' ? "~1" : std::string(1, c);
  return "/" + one_line(part);
}

std::string_view type_of(const Json& value) {
  if (value.is_null()) return "null";
  if (value.is_boolean()) return "boolean";
  if (value.is_number_integer()) return "integer";
  if (value.is_number()) return "number";
  return value.is_string() ? "string" : value.is_array() ? "array" : "object";
}

// A schema and where it stands.
struct Place {
  const Json* json;
  std::string pointer;

  Place at(std::string_view key) const {
    return {&(*json)[std::string(key)], pointer + pointer_part(key)};
  }
  Place at(std::size_t i) const { return {&(*json)[i], fmt::format("{}/{}", pointer, i)}; }
  bool has(std::string_view key) const {
    return json->is_object() && json->contains(std::string(key));
  }
};

class SchemaParser {
 public:
  SchemaParser(Expressions& in, const Json& root, const std::string& where)
      : in_(in), root_(root), where_(where) {}

  Expression parse() {
    const Place root{&root_, ""};
    const Expression e = value(root, kMostReferences);
    if (e == kNoText) {
      refuse(root, fmt::format("no answer is possible: a part refers to itself without end, more "
                               "than {} references deep, or its bounds leave nothing",
                               kMostReferences));
    }
    return e;
  }

 private:
  [[noreturn]] void refuse(const Place& place, const std::string& why) const {
    fail(Exit::bad_data, "{}: at '#{}': {}", where_, place.pointer, why);
  }

  // kNoText where nothing matches, as behind too many references.
  Expression value(const Place& place, int n_references) {
    const auto key = std::pair(place.json, n_references);
    if (const auto known = known_.find(key); known != known_.end()) return known->second;
    const Expression e = new_value(place, n_references);
    known_[key] = e;
    return e;
  }

  Expression new_value(const Place& place, int n_references) {
    const Json& schema = *place.json;
    if (schema.is_boolean() && schema.get<bool>()) return any_value();
    if (!schema.is_object()) {
      refuse(place, fmt::format("expected a schema, an object, got {}",
                                schema.is_boolean() ? "false" : schema.type_name()));
    }
    if (schema.contains("$ref")) return reference(place, n_references);
    if (schema.contains("const") || schema.contains("enum")) return constants(place);
    for (const char* key : {"anyOf", "oneOf", "allOf"})
      if (schema.contains(key)) return combination(place, key, n_references);
    const std::vector<std::string> types = types_of(place);
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
  void check_alone(const Place& place, const Keys& own) const {
    for (const auto& [key, value] : place.json->items()) {
      if (is_one_of(own, key) || is_one_of(kAnnotations, key)) continue;
      refuse(place, fmt::format("keyword '{}' beside '{}' is not supported; put it inside of that",
                                one_line(key.substr(0, 80)), own[0]));
    }
  }

  void check_keys(const Place& place, const std::vector<std::string>& types) const {
    Keys keys = kAnnotations;
    keys.emplace_back("type");
    const auto add = [&](const Keys& more) { keys.insert(keys.end(), more.begin(), more.end()); };
    for (const std::string& type : types) add(keys_of(type));
    for (const auto& [key, value] : place.json->items()) {
      if (is_one_of(keys, key)) continue;
      const bool is_known = is_one_of(kOfStrings, key) || is_one_of(kOfNumbers, key) ||
                            is_one_of(kOfArrays, key) || is_one_of(kOfObjects, key);
      if (is_known) {
        refuse(place, fmt::format("keyword '{}' says nothing about type {}; leave it out", key,
                                  fmt::join(types, " or ")));
      }
      refuse(place, fmt::format("keyword '{}' is not supported; leave it out, or describe the "
                                "answer without it",
                                one_line(key.substr(0, 80))));
    }
  }

  static const Keys& keys_of(std::string_view type) {
    static const Keys kNone;
    if (type == "string") return kOfStrings;
    if (type == "number" || type == "integer") return kOfNumbers;
    return type == "array" ? kOfArrays : type == "object" ? kOfObjects : kNone;
  }

  // As `type` says, or else the keywords; none where any value is meant.
  std::vector<std::string> types_of(const Place& place) const {
    std::vector<std::string> types;
    if (!place.has("type")) {
      for (const std::string_view type : {"number", "string", "array", "object"}) {
        const bool is_meant = std::ranges::any_of(
            keys_of(type), [&](std::string_view key) { return place.has(key); });
        if (is_meant) types.emplace_back(type);
      }
      return types;
    }
    const Json& type = *place.at("type").json;
    for (const Json& one : type.is_array() ? type : Json::array({type})) {
      if (!one.is_string() || !is_one_of(kTypes, one.get<std::string>())) {
        refuse(place.at("type"),
               fmt::format("expected one of {}, or an array of them, got {}",
                           fmt::join(kTypes, ", "), first_characters(to_line(type), 80)));
      }
      types.push_back(one.get<std::string>());
    }
    if (types.empty()) refuse(place.at("type"), "the array is empty");
    return types;
  }

  Expression of_type(const Place& place, const std::string& type, int n_references) {
    if (type == "null") return in_.text("null");
    if (type == "boolean") return in_.any_of_texts({"true", "false"});
    if (type == "integer" || type == "number") return number(place, type == "integer");
    if (type == "string") return string(place);
    return type == "array" ? array(place, n_references) : object(place, n_references);
  }

  // --- the keywords of each type -----------------------------------------------------------------

  std::uint32_t count(const Place& place, const char* key, std::uint32_t absent) const {
    if (!place.has(key)) return absent;
    const Json& json = *place.at(key).json;
    const double n = json.is_number() ? json.get<double>() : -1;
    if (n < 0 || std::floor(n) != n) {
      refuse(place.at(key), fmt::format("expected a whole number from 0, got {}",
                                        first_characters(to_line(json), 80)));
    }
    if (n <= kMostCount) return static_cast<std::uint32_t>(n);
    if (absent == Expressions::kNoLimit) return absent;  // no answer is so long
    refuse(place.at(key), "no answer is so long");
  }

  std::pair<std::uint32_t, std::uint32_t> counts(const Place& place, const char* min_key,
                                                 const char* max_key) const {
    const std::uint32_t min = count(place, min_key, 0);
    const std::uint32_t max = count(place, max_key, Expressions::kNoLimit);
    if (min > max) refuse(place, fmt::format("'{}' is more than '{}'", min_key, max_key));
    return {min, max};
  }

  Expression string(const Place& place) {
    const auto [min, max] = counts(place, "minLength", "maxLength");
    const bool has_length = place.has("minLength") || place.has("maxLength");
    const bool has_pattern = place.has("pattern");
    if (has_pattern + place.has("format") + has_length > 1) {
      refuse(place,
             "only one of a length, 'pattern' and 'format' can be heeded; a pattern can say the "
             "length, as ^[a-z]{2,5}$ does");
    }
    if (!has_pattern && !place.has("format"))
      return json_string(in_, any_json_character(in_), min, max);
    const Place at = place.at(has_pattern ? "pattern" : "format");
    if (!at.json->is_string())
      refuse(at, fmt::format("expected a string, got {}", at.json->type_name()));
    const std::string said = at.json->get<std::string>();
    const std::string regex = has_pattern ? said : format(at, said);
    const Expression text =
        parse_regex(in_, regex, RegexUse::pattern, fmt::format("{}: at '#{}'", where_, at.pointer));
    return in_.sequence({in_.text("\""), text, in_.text("\"")});
  }

  std::string format(const Place& place, const std::string& name) const {
    if (const std::optional<std::string> regex = regex_of_format(name)) return *regex;
    refuse(place, fmt::format("of the formats date, time, date-time, ipv4, uuid and email are "
                              "supported, got '{}'; leave it out, or write a 'pattern'",
                              one_line(name.substr(0, 80))));
  }

  Expression number(const Place& place, bool is_integer) {
    const auto bound = [&](const char* key) -> std::optional<double> {
      if (!place.has(key)) return std::nullopt;
      const Json& json = *place.at(key).json;
      if (!json.is_number()) {
        refuse(place.at(key), fmt::format("expected a number, got {}", json.type_name()));
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
    if (e == kNoText) refuse(place, "no number of up to 15 digits is within these bounds");
    return e;
  }

  Expression array(const Place& place, int n_references) {
    const auto [min, max] = counts(place, "minItems", "maxItems");
    if (place.has("uniqueItems") && *place.at("uniqueItems").json != Json(false))
      refuse(place.at("uniqueItems"), "nothing but false is supported; leave it out");
    std::vector<Expression> first;
    const bool has_first = place.has("prefixItems");
    if (has_first) {
      const Place items = place.at("prefixItems");
      if (!items.json->is_array()) refuse(items, "expected an array of schemas");
      for (std::size_t i = 0; i < items.json->size(); ++i)
        first.push_back(value(items.at(i), n_references));
    }
    Expression others = has_first ? kNoText : any_value();  // none behind the first, but if said
    if (place.has("items")) {
      const Place items = place.at("items");
      others = *items.json == Json(false) ? kNoText : value(items, n_references);
    }
    return json_array(in_, first, others, min, max);
  }

  Expression object(const Place& place, int n_references) {
    std::vector<JsonMember> members;
    if (place.has("properties")) {
      const Place properties = place.at("properties");
      if (!properties.json->is_object()) refuse(properties, "expected an object of schemas");
      for (const auto& [name, schema] : properties.json->items())
        members.push_back(
            {name, value({&schema, properties.pointer + pointer_part(name)}, n_references)});
    }
    for (const std::string& name : required_of(place)) {
      const auto member = std::ranges::find(members, name, &JsonMember::name);
      if (member == members.end()) {
        refuse(place.at("required"),
               fmt::format("'{}' is not among the 'properties'", one_line(name.substr(0, 80))));
      }
      member->is_required = true;
    }
    constexpr std::ptrdiff_t kMostOptional = 1000;
    if (std::ranges::count(members, false, &JsonMember::is_required) > kMostOptional) {
      refuse(place, fmt::format("at most {} properties may be left out; say with 'required' which "
                                "may not",
                                kMostOptional));
    }
    constexpr std::size_t kLongestName = 1000;  // bytes
    for (const JsonMember& member : members) {
      if (member.name.size() > kLongestName)
        refuse(place, fmt::format("names have up to {} bytes", kLongestName));
    }
    // Others where they are asked for, and where nothing else is.
    Expression other = members.empty() ? any_value() : kNoText;
    if (place.has("additionalProperties")) {
      const Place others = place.at("additionalProperties");
      other = *others.json == Json(false) ? kNoText : value(others, n_references);
    }
    return json_object(in_, members, other);
  }

  std::vector<std::string> required_of(const Place& place) const {
    std::vector<std::string> names;
    if (!place.has("required")) return names;
    const Place required = place.at("required");
    if (!required.json->is_array()) refuse(required, "expected an array of names");
    for (const Json& name : *required.json) {
      if (!name.is_string()) refuse(required, "expected an array of names");
      names.push_back(name.get<std::string>());
    }
    return names;
  }

  // --- what stands for a whole schema ------------------------------------------------------------

  // A number of more than 64 bits would be written as the nearest one that a double has.
  void refuse_inexact(const Place& place, const Json& value) const {
    constexpr double kBeyond = 9.2e18;
    if (value.is_structured()) {
      for (const Json& inner : value) refuse_inexact(place, inner);
    } else if (value.is_number_float() && std::abs(value.get<double>()) > kBeyond) {
      refuse(place, fmt::format("{} is beyond 64 bits, so it cannot be written exactly; make it a "
                                "string",
                                to_line(value)));
    }
  }

  Expression constants(const Place& place) {
    const char* key = place.has("const") ? "const" : "enum";
    check_alone(place, {key, "type"});
    const Json& said = *place.at(key).json;
    const bool is_enum = !place.has("const");
    if (is_enum && (!said.is_array() || said.empty()))
      refuse(place.at(key), "expected an array with at least one value");
    const std::vector<std::string> types = types_of(place);
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
      refuse(place.at(key), fmt::format("no value is of type {}", fmt::join(types, " or ")));
    return in_.any_of_texts(std::move(texts));
  }

  // #, #/$defs/name and the like.
  Place referred(const Place& place) const {
    const Place at = place.at("$ref");
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

  Expression reference(const Place& place, int n_references) {
    check_alone(place, {"$ref"});
    const Place there = referred(place);
    return n_references == 0 ? kNoText : value(there, n_references - 1);
  }

  Expression combination(const Place& place, const char* key, int n_references) {
    check_alone(place, {key});
    const Place schemas = place.at(key);
    if (!schemas.json->is_array() || schemas.json->empty())
      refuse(schemas, "expected an array with at least one schema");
    const std::size_t n = schemas.json->size();
    if (key == std::string_view("allOf") && n > 1)
      refuse(schemas, "nothing but a single schema is supported; write what they say together");
    const bool is_one_of = key == std::string_view("oneOf");
    if (is_one_of && n > kMostAlternatives)
      refuse(schemas,
             fmt::format("at most {} alternatives are compared; write anyOf", kMostAlternatives));
    std::vector<Expression> ways;
    for (std::size_t i = 0; i < n; ++i) {
      ways.push_back(value(schemas.at(i), n_references));
      for (std::size_t k = 0; is_one_of && k < i; ++k) {
        if (!exclude_each_other(schemas.at(k), schemas.at(i))) {
          refuse(schemas, fmt::format("alternatives {} and {} could both match; where that does "
                                      "not matter, write anyOf",
                                      k, i));
        }
      }
    }
    return in_.either(std::move(ways));
  }

  // --- whether two schemas share no value --------------------------------------------------------

  Place resolved(Place place) const {
    for (int i = 0; i < kMostReferences && place.has("$ref"); ++i) place = referred(place);
    return place;
  }

  // Compared as JSON schema compares them: 1 is 1.0, and members have no order.
  using Values = std::set<nlohmann::json>;

  // The values that a schema lists, nothing where it lists none.
  static std::optional<Values> listed(const Place& place) {
    if (place.has("const")) return Values{nlohmann::json(*place.at("const").json)};
    if (!place.has("enum")) return std::nullopt;
    Values values;
    for (const Json& value : *place.at("enum").json) values.emplace(value);
    return values;
  }

  static bool share_none(const Values& a, const Values& b) {
    return std::ranges::none_of(a, [&](const auto& value) { return b.contains(value); });
  }

  // What is certain: types that differ, or values, or those of a member that both have.
  bool exclude_each_other(const Place& a, const Place& b) const {
    const Place one = resolved(a);
    const Place other = resolved(b);
    const auto values = listed(one);
    const auto other_values = listed(other);
    if (values && other_values) return share_none(*values, *other_values);
    if (!one.has("type") || !other.has("type")) return false;
    std::vector<std::string> types = types_of(one);
    for (const std::string& type : types_of(other)) {
      const bool is_number = type == "integer" || type == "number";
      const bool is_shared = std::ranges::any_of(types, [&](const std::string& mine) {
        return mine == type || (is_number && (mine == "integer" || mine == "number"));
      });
      if (is_shared) return type == "object" && have_a_member_apart(one, other);
    }
    return true;
  }

  bool have_a_member_apart(const Place& a, const Place& b) const {
    if (!a.has("properties") || !b.has("properties")) return false;
    const std::vector<std::string> in_b = required_of(b);
    for (const std::string& name : required_of(a)) {
      const Place mine = a.at("properties");
      const Place theirs = b.at("properties");
      if (std::ranges::find(in_b, name) == in_b.end() || !mine.has(name) || !theirs.has(name))
        continue;
      const auto values = listed(resolved(mine.at(name)));
      const auto other_values = listed(resolved(theirs.at(name)));
      if (values && other_values && share_none(*values, *other_values)) return true;
    }
    return false;
  }

  Expressions& in_;
  const Json& root_;
  const std::string& where_;
  Expression any_value_ = kNoText;
  std::map<std::pair<const Json*, int>, Expression> known_;
};

}  // namespace

Expression parse_json_schema(Expressions& in, std::string_view schema, const std::string& where) {
  const Json root = parse_json(schema, where, kLimits);
  return SchemaParser(in, root, where).parse();
}

}  // namespace starattn
