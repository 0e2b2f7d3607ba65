// SPDX-License-Identifier: Apache-2.0
// The points of a study: every combination of what its lists name.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "run/option_parts.h"
#include "star/plan.h"

namespace starattn {

// Lists as the command line has them; of each plan option one value at least.
struct SweepLists {
  std::vector<std::string> tokens = {"8k"};
  std::vector<std::string> tokens_a_rank;  // in place of tokens, where there are any
  std::vector<std::string> settings;       // in place of the lists below; P: the number of ranks
  std::vector<std::string> attention = {"star"};
  std::vector<std::string> block_size = {"auto"};
  std::vector<std::string> anchor_size = {"block"};
  std::vector<std::string> reach = {"0"};
  std::vector<std::string> recall = {"0"};
  std::vector<std::string> recall_rows = {"auto"};
};

struct StudyPoint {
  std::string setting;  // "star:b=n/P", or what of the plan options is not their default
  BlockPlan plan;
  AnchorMode anchor = AnchorMode::broadcast;
};

// with_recompute: each plain star point once more with the anchor computed again. widest_window: as
// BlockPlan::make takes it. common: for --placement. Of several attentions ring and dense take no
// part in the lists of star's own options, nor dense in those of blocks. Throws Error(usage |
// bad_data) naming the option.
std::vector<StudyPoint> points_of(const SweepLists& lists, const MethodOptions& common, int n_ranks,
                                  bool with_recompute, std::int64_t widest_window = 0);

}  // namespace starattn
