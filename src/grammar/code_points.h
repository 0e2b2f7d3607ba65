// SPDX-License-Identifier: Apache-2.0
// Sets of Unicode characters (no surrogates), and one character of such a set as bytes.
#pragma once

#include <string_view>
#include <vector>

#include "grammar/expressions.h"

namespace starattn {

class CodePoints {
 public:
  static constexpr char32_t kHighest = 0x10ffff;

  CodePoints() = default;
  CodePoints(char32_t first, char32_t last) { add(first, last); }
  static CodePoints all();

  void add(char32_t first, char32_t last);
  void add(const CodePoints& other);
  CodePoints others() const;  // all that are not in it
  CodePoints without(const CodePoints& other) const;
  bool contains(char32_t c) const;

  struct Range {
    char32_t first, last;
  };
  // Ascending; none touches another.
  const std::vector<Range>& ranges() const { return ranges_; }

 private:
  std::vector<Range> ranges_;
};

// The characters of a text in UTF-8, which must be well-formed.
std::u32string characters_of(std::string_view text);
std::string utf8_of(char32_t c);

// One character of the set, in UTF-8.
Expression utf8_of(Expressions& in, const CodePoints& set);
// One character of the set as it stands within a JSON string: quotes, backslashes and control
// characters escaped, others not.
Expression json_of(Expressions& in, const CodePoints& set);
// Any character of a JSON string, escaped in any way. One \u escape is one character.
Expression any_json_character(Expressions& in);

}  // namespace starattn
