// SPDX-License-Identifier: Apache-2.0
// A search pattern of a tokenizer.json, run by PCRE2: a regular expression or a plain string.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

#include "base/function_ref.h"
#include "base/json.h"

namespace starattn {

class Pattern {
 public:
  // where: for messages. Throw Error(bad_data) when the pattern is malformed.
  static Pattern regex(const std::string& expression, const std::string& where);
  static Pattern literal(const std::string& text, const std::string& where);
  // {"Regex": "..."} or {"String": "..."} at `key`.
  static Pattern read(const JsonObject& json, const char* key);

  // Reports matches from left to right as byte offsets [begin, end); empty ones too, except
  // directly behind another. The text must be valid UTF-8. One caller at a time. Throws
  // Error(bad_data) when a match would take too many steps.
  void each_match(std::string_view text,
                  FunctionRef<void(std::size_t begin, std::size_t end)> found) const;

 private:
  struct Compiled;
  explicit Pattern(std::shared_ptr<const Compiled> compiled) : compiled_(std::move(compiled)) {}
  static Pattern compile(const std::string& text, unsigned options, const std::string& where);

  std::shared_ptr<const Compiled> compiled_;
};

}  // namespace starattn
