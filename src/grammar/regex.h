// SPDX-License-Identifier: Apache-2.0
// Regular expressions as people write them, in the dialect of ECMA-262 (JSON schema's), as far as
// they are regular: no lookaround, no references back. docs/structured-output.md has the list.
#pragma once

#include <string>
#include <string_view>

#include "grammar/expressions.h"

namespace starattn {

enum class RegexUse {
  answer,   // of the whole text; ^ and $ may stand around it and change nothing
  pattern,  // found anywhere in the value of a JSON string, unless ^ and $ bind it; without quotes
};

// regex: UTF-8. Throws Error(bad_data) naming `where`, the character at fault and its place.
Expression parse_regex(Expressions& in, std::string_view regex, RegexUse use,
                       const std::string& where);

}  // namespace starattn
