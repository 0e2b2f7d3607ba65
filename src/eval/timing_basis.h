// SPDX-License-Identifier: Apache-2.0
// On what seconds were measured: only those of equal means are compared.
#pragma once

#include "base/json.h"
#include "run/loaded_model.h"
#include "star/plan.h"

namespace starattn {

struct TimingBasis {
  std::int64_t n_ranks = 0;    // that had blocks to encode; 0: not known, from an older file
  bool shares_device = false;  // some ranks computed on one GPU, or on the same cores

  static void fields(auto& basis, auto& archive) {
    auto& [n_ranks, shares_device] = basis;
    archive(n_ranks, shares_device);
  }
};

inline TimingBasis basis_of(const BlockPlan& plan, const LoadedModel& model) {
  TimingBasis basis{0, model.shares_device};
  for (Rank rank = 0; rank < plan.n_ranks(); ++rank)
    basis.n_ranks += plan.blocks_of(rank).empty() ? 0 : 1;
  return basis;
}

inline bool are_comparable(const TimingBasis& a, const TimingBasis& b) {
  return a.n_ranks > 0 && a.n_ranks == b.n_ranks && !a.shares_device && !b.shares_device;
}

}  // namespace starattn
