// SPDX-License-Identifier: Apache-2.0
// A way of attending that an evaluation compares, as a word of its command line:
//
//   dense                    exact
//   ring                     exact, balanced over ranks
//   star                     block, anchor and reach as `run` chooses them
//   star:b=n/4,a=b/2,r=1     b: tokens or a part of the context, a: tokens or a part of b,
//                            r: blocks or all
#pragma once

#include <cstdint>
#include <string>

#include "star/plan.h"

namespace starattn {

class Setting {
 public:
  // Throws Error(usage) naming what it cannot read.
  static Setting parse(const std::string& text);

  // The same for all spellings of a setting: b, a, r in this order, 1k as 1024, without r=0.
  std::string name() const;
  bool is_exact() const { return attention_ != Attention::star; }
  // For a context of so many tokens. Parts are rounded up.
  PlanRequest plan_request(std::int64_t n_context) const;

 private:
  // n_tokens, or a part of something else: whole / divisor.
  struct Size {
    std::int64_t n_tokens = 0;
    std::int64_t divisor = 0;  // 0: n_tokens is meant

    std::int64_t of(std::int64_t whole) const {
      return divisor == 0 ? n_tokens : (whole + divisor - 1) / divisor;
    }
    std::string text(char whole) const;
  };
  static Size parse_size(const std::string& text, char whole, const std::string& where);

  Attention attention_ = Attention::star;
  std::optional<Size> block_;
  std::optional<Size> anchor_;
  std::int64_t reach_ = 0;
};

}  // namespace starattn
