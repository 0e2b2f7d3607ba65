// SPDX-License-Identifier: Apache-2.0
// Whether an expression matches a text, byte by byte, and texts to try.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "grammar/expressions.h"

namespace starattn::testing {

inline Expressions new_expressions() {
  return Expressions(ByteSet().set());
}

// What is left of e behind the text.
inline Expression behind(Expressions& in, Expression e, std::string_view text) {
  for (const char byte : text) e = in.after(e, static_cast<unsigned char>(byte));
  return e;
}

inline bool matches(Expressions& in, Expression e, std::string_view text) {
  return in.may_end(behind(in, e, text));
}

// All texts of a, b and c with up to n characters.
inline std::vector<std::string> all_texts(std::size_t n) {
  std::vector<std::string> texts{""};
  for (std::size_t i = 0; texts[i].size() < n; ++i)
    for (const char c : {'a', 'b', 'c'}) texts.push_back(texts[i] + c);
  return texts;
}

}  // namespace starattn::testing
