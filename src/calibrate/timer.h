// SPDX-License-Identifier: Apache-2.0
// How long one call of an operation takes while all ranks make the same calls.
#pragma once

#include <cstdint>
#include <functional>

#include "backend/backend.h"
#include "mpi/communicator.h"

namespace starattn {

// Bundles of calls that are timed: of what is at the power limit of a GPU, and of what is not.
inline constexpr std::size_t kBundles = 6, kFewBundles = 3;

class CalibrationTimer {
 public:
  // Arguments outlive this.
  CalibrationTimer(Backend& backend, const Communicator& world)
      : backend_(backend), world_(world) {}

  // Seconds of one call: the mean over the ranks, each of which takes, of its bundles, on a GPU the
  // mean, because at its power limit it is now faster, now slower, and on a CPU the best, because
  // it is other processes that make the rest slower. operation(i): i = 0, 1, ... Collective.
  using Operation = std::function<void(std::int64_t)>;
  double operator()(const Operation& operation, std::size_t n_bundles = kBundles) const;

 private:
  Backend& backend_;
  const Communicator& world_;
};

}  // namespace starattn
