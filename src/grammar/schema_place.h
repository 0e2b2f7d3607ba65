// SPDX-License-Identifier: Apache-2.0
// A JSON schema and the places in it: what they say, and how they are refused.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/json.h"

namespace starattn {

using SchemaKeys = std::vector<std::string_view>;

inline constexpr int kMostReferences = 24;  // $ref within each other; beyond them nothing matches
inline constexpr std::string_view kTypesWithKeys[] = {"number", "string", "array", "object"};

bool is_one_of(const SchemaKeys& keys, std::string_view key);
// Keywords that say something about values of a type; none for types that have no such.
const SchemaKeys& schema_keys_of(std::string_view type);

// A schema within a schema, and where it stands.
struct SchemaPlace {
  const Json* json;
  std::string pointer;  // RFC 6901

  SchemaPlace at(std::string_view key) const;
  SchemaPlace at(std::size_t i) const { return {&(*json)[i], fmt::format("{}/{}", pointer, i)}; }
  // The same for the value of a key that was found already.
  SchemaPlace member(std::string_view key, const Json& value) const;
  bool has(std::string_view key) const {
    return json->is_object() && json->contains(std::string(key));
  }
};

class Schema {
 public:
  // where: for messages. Both outlive this.
  Schema(const Json& root, const std::string& where) : root_(root), where_(where) {}

  SchemaPlace root() const { return {&root_, ""}; }
  // "schema.json: at '#/properties/a'"
  std::string name_of(const SchemaPlace& place) const {
    return fmt::format("{}: at '#{}'", where_, place.pointer);
  }
  // Throws Error(bad_data), as what follows does where the place is wrong.
  [[noreturn]] void refuse(const SchemaPlace& place, const std::string& why) const;

  // As `type` says, or else the keywords; none where any value is meant.
  std::vector<std::string> types_of(const SchemaPlace& place) const;
  // The names in `required`.
  std::vector<std::string> required_of(const SchemaPlace& place) const;
  // Where its $ref points to: #, #/$defs/name and the like.
  SchemaPlace referred(const SchemaPlace& place) const;

 private:
  const Json& root_;
  const std::string& where_;
};

}  // namespace starattn
