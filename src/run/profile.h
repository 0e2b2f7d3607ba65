// SPDX-License-Identifier: Apache-2.0
// Where time goes: what the ranks' recorders (trace/recorder.h) counted, put together: each
// operation, each phase, each kind of message. docs/profile.md defines the columns.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/json.h"
#include "mpi/communicator.h"
#include "trace/recorder.h"

namespace starattn {

inline constexpr const char* kProfileSchema = "starattn-profile-1";

// Seconds of the ranks.
struct OverRanks {
  double min = 0, mean = 0, max = 0;
  int slowest = 0;  // rank
};

struct Profile {
  struct Phase {
    std::string name;
    OverRanks seconds;
  };
  struct Operation {
    trace::Operation all;  // calls, operations and bytes of all ranks together
    OverRanks seconds;
  };
  struct Message {
    std::string kind;
    std::int64_t n_calls = 0;  // of all ranks together
    std::uint64_t n_bytes = 0;
    OverRanks waits;  // seconds in which a rank waited for such messages
  };
  int n_ranks = 1;
  bool has_device_times = false;
  std::vector<Phase> phases;  // and parts of them, in order of first use
  std::vector<Operation> operations;
  std::vector<Message> messages;

  double seconds_of(const std::string& phase) const;  // mean; 0: there is none
};

// What one rank can do at most, as it was measured; 0: not known.
struct Ceilings {
  double flop_per_s = 0;
  double bytes_per_s = 0;
  std::string of;  // where they come from
};

// Since the last trace::reset(). Collective; complete on the first rank.
Profile gather_profile(const Communicator& world, bool has_device_times);

// The operation's least time by the ceilings over its time; 0: not known.
double share_of_ceiling(const Profile::Operation& operation, const Ceilings& ceilings);

std::vector<std::string> to_table(const Profile& profile, const Ceilings& ceilings);  // lines
Json to_json(const Profile& profile, const Ceilings& ceilings);

}  // namespace starattn
