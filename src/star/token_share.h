// SPDX-License-Identifier: Apache-2.0
// A number of tokens as people write it: 4096, 32k, or a part of something else: n/4, b/16.
#pragma once

#include <cstdint>
#include <string>

namespace starattn {

struct TokenShare {
  std::int64_t n_tokens = 0;
  std::int64_t divisor = 0;  // 0: n_tokens is meant; else whole / divisor, rounded up

  std::int64_t of(std::int64_t whole) const {
    return divisor == 0 ? n_tokens : (whole + divisor - 1) / divisor;
  }
  std::string text(char whole) const;  // "4096", "b/16", "b"

  // whole: the letter of what may be divided. where: named in the Error(usage) of what it cannot
  // read.
  static TokenShare parse(const std::string& text, char whole, const std::string& where);
};

}  // namespace starattn
