// SPDX-License-Identifier: Apache-2.0
#include "grammar/schema_exclusion.h"

#include <algorithm>
#include <optional>
#include <set>

namespace starattn {
namespace {

SchemaPlace resolved(const Schema& schema, SchemaPlace place) {
  for (int i = 0; i < kMostReferences && place.has("$ref"); ++i) place = schema.referred(place);
  return place;
}

// Compared as JSON schema compares them: 1 is 1.0, and members have no order.
using Values = std::set<nlohmann::json>;

// The values that a schema lists, nothing where it lists none.
std::optional<Values> listed(const SchemaPlace& place) {
  if (place.has("const")) return Values{nlohmann::json(*place.at("const").json)};
  if (!place.has("enum")) return std::nullopt;
  Values values;
  for (const Json& value : *place.at("enum").json) values.emplace(value);
  return values;
}

bool share_none(const Values& a, const Values& b) {
  return std::ranges::none_of(a, [&](const auto& value) { return b.contains(value); });
}

// A member that both must have has no value in common.
bool have_a_member_apart(const Schema& schema, const SchemaPlace& a, const SchemaPlace& b) {
  if (!a.has("properties") || !b.has("properties")) return false;
  const std::vector<std::string> in_b = schema.required_of(b);
  for (const std::string& name : schema.required_of(a)) {
    const SchemaPlace mine = a.at("properties");
    const SchemaPlace theirs = b.at("properties");
    if (std::ranges::find(in_b, name) == in_b.end() || !mine.has(name) || !theirs.has(name))
      continue;
    const auto values = listed(resolved(schema, mine.at(name)));
    const auto other_values = listed(resolved(schema, theirs.at(name)));
    if (values && other_values && share_none(*values, *other_values)) return true;
  }
  return false;
}

}  // namespace

bool exclude_each_other(const Schema& schema, const SchemaPlace& a, const SchemaPlace& b) {
  const SchemaPlace one = resolved(schema, a);
  const SchemaPlace other = resolved(schema, b);
  const auto values = listed(one);
  const auto other_values = listed(other);
  if (values && other_values) return share_none(*values, *other_values);
  if (!one.has("type") || !other.has("type")) return false;
  std::vector<std::string> types = schema.types_of(one);
  for (const std::string& type : schema.types_of(other)) {
    const bool is_number = type == "integer" || type == "number";
    const bool is_shared = std::ranges::any_of(types, [&](const std::string& mine) {
      return mine == type || (is_number && (mine == "integer" || mine == "number"));
    });
    if (is_shared) return type == "object" && have_a_member_apart(schema, one, other);
  }
  return true;
}

}  // namespace starattn
