// SPDX-License-Identifier: Apache-2.0
// Expressions of Jinja, as far as chat templates need them: literals, names, attributes, slices,
// operators, tests, and some methods and filters. Whatever else is there is refused, not guessed.
#pragma once

#include <map>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace starattn::jinja {

// Something that we do not know how to do, or that the template itself refuses.
class NotUnderstood : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Names and their values, the innermost scope last. What `set` writes in a loop ends with it, but
// for attributes of a namespace().
class Variables {
 public:
  explicit Variables(std::map<std::string, Json> values) : scopes_{std::move(values)} {}

  Json* find(const std::string& name);  // nullptr when it is undefined
  void set(const std::string& name, Json value) { scopes_.back()[name] = std::move(value); }
  void open_scope() { scopes_.emplace_back(); }
  void close_scope() { scopes_.pop_back(); }

 private:
  std::vector<std::map<std::string, Json>> scopes_;
};

bool is_true(const Json& value);
std::string to_text(const Json& value);  // throws NotUnderstood for lists and objects

// The value; Json's "discarded" where it is undefined. Throws NotUnderstood.
Json evaluate(std::string_view expression, Variables& variables);

}  // namespace starattn::jinja
