// SPDX-License-Identifier: Apache-2.0
#include "run/progress.h"

#include <algorithm>

#include "base/log.h"
#include "base/text.h"

namespace starattn {

void Progress::start(std::string what, std::int64_t n_tokens, std::int64_t n_steps) {
  what_ = std::move(what);
  n_tokens_ = n_tokens;
  n_steps_ = n_steps;
  n_done_ = 0;
  last_said_ = 0;
  clock_ = Stopwatch();
}

void Progress::step() {
  ++n_done_;
  const double now = clock_.seconds();
  const double pause = std::clamp(now / 20, kSecondsBetween, 60.0);
  if (quiet_ || now - last_said_ < pause || n_done_ > n_steps_) return;
  last_said_ = now;
  const double share = static_cast<double>(n_done_) / static_cast<double>(n_steps_);
  log::info("{}: {:.0f} % of {} tokens, {} tokens/s, {} left", what_, 100 * share,
            with_commas(n_tokens_),
            with_commas(static_cast<std::int64_t>(share * static_cast<double>(n_tokens_) / now)),
            human_seconds(now * (1 - share) / share));
}

}  // namespace starattn
