// SPDX-License-Identifier: Apache-2.0
// Whether an expression matches a text, byte by byte.
#pragma once

#include <string_view>

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

}  // namespace starattn::testing
