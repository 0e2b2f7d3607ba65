// SPDX-License-Identifier: Apache-2.0
// A way of attending that an evaluation compares, as a word of its command line:
//
//   dense                    exact
//   ring                     exact, balanced over ranks
//   star                     block, anchor and reach as `run` chooses them
//   star:b=n/4,a=b/2,r=1     b: tokens or a part of the context, a: tokens or a part of b,
//                            r: blocks or all
//   star:b=n/16,a=b/16,c=b/2 with recall: c and q (the rows that ask): tokens or a part of b
#pragma once

#include <cstdint>
#include <string>

#include "star/plan.h"
#include "star/token_share.h"

namespace starattn {

class Setting {
 public:
  // Throws Error(usage) naming what it cannot read.
  static Setting parse(const std::string& text);

  // The same for all spellings of a setting: b, a, r, c, q in this order, 1k as 1024, without r=0.
  std::string name() const;
  bool is_exact() const { return attention_ != Attention::star; }
  // For a context of so many tokens. Parts are rounded up.
  PlanRequest plan_request(std::int64_t n_context) const;

 private:
  Attention attention_ = Attention::star;
  std::optional<TokenShare> block_;
  std::optional<TokenShare> anchor_;
  std::int64_t reach_ = 0;
  std::optional<TokenShare> recall_;
  std::optional<TokenShare> recall_rows_;
};

}  // namespace starattn
