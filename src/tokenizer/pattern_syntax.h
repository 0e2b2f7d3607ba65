// SPDX-License-Identifier: Apache-2.0
// Tokenizer patterns are written for the Oniguruma library. Most of it PCRE2 reads alike; what it
// would read differently is rewritten here, or refused.
#pragma once

#include <string>

namespace starattn {

// Rewrites \s \d \w \b \h (PCRE2's sets differ by a few characters), \uHHHH and {,n}.
// Throws UnsupportedTokenizer for nested classes, &&, possessive intervals and option letters
// other than i.
std::string to_pcre2_syntax(const std::string& oniguruma, const std::string& where);

}  // namespace starattn
