// SPDX-License-Identifier: Apache-2.0
// On which node each rank is taken to be: one test on one machine covers memory that ranks share
// and messages between nodes.
#pragma once

#include <gtest/gtest.h>

#include "base/rank.h"

namespace starattn {

struct NodeLayout {
  const char* name;
  int (*node_of)(Rank rank);
};

// A suite's tests run once with each.
#define STARATTN_IN_EVERY_NODE_LAYOUT(suite)                                       \
  INSTANTIATE_TEST_SUITE_P(                                                        \
      Nodes, suite,                                                                \
      ::testing::Values(NodeLayout{"one", [](Rank) { return 0; }},                 \
                        NodeLayout{"two", [](Rank rank) { return rank % 2; }},     \
                        NodeLayout{"each_alone", [](Rank rank) { return rank; }}), \
      [](const auto& layout) { return layout.param.name; })

}  // namespace starattn
