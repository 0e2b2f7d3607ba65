// SPDX-License-Identifier: Apache-2.0
// Expressions of Jinja, as far as chat templates need them: literals, names, attributes, slices,
// operators, tests, and some methods and filters. Whatever else is there is refused, not guessed.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/jinja_values.h"

namespace starattn::jinja {

// Names and their values, the innermost scope last. What `set` writes in a loop ends with it, but
// for attributes of a namespace().
class Variables {
 public:
  using Scope = std::map<std::string, Json>;
  explicit Variables(Scope values) : scopes_{std::move(values)} {}

  Json* find(const std::string& name);  // nullptr when it is undefined
  Json* find_outermost(const std::string& name);
  void set(const std::string& name, Json value) { scopes_.back()[name] = std::move(value); }
  void open_scope() { scopes_.emplace_back(); }
  void close_scope() { scopes_.pop_back(); }
  bool has_inner_scopes() const { return scopes_.size() > 1; }
  // All but the outermost, which alone a macro sees; and back again.
  std::vector<Scope> take_inner_scopes();
  void put_inner_scopes(std::vector<Scope> scopes);

  // What the template's own macros write, by name.
  using Macro = std::function<std::string(const Arguments&)>;
  std::map<std::string, Macro> macros;

 private:
  std::vector<Scope> scopes_;
};

// The value; Json's "discarded" where it is undefined. Throws NotUnderstood.
Json evaluate(std::string_view expression, Variables& variables);

}  // namespace starattn::jinja
