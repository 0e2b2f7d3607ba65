// SPDX-License-Identifier: Apache-2.0
#include "study/sweep.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace starattn {
namespace {

std::vector<std::string> names_of(const SweepLists& lists, int n_ranks = 2,
                                  bool recompute = false) {
  std::vector<std::string> names;
  for (const StudyPoint& point : points_of(lists, MethodOptions(), n_ranks, recompute))
    names.push_back(fmt::format("{} {}{}", point.setting, point.plan.n_context(),
                                point.anchor == AnchorMode::recompute ? " again" : ""));
  return names;
}

using Names = std::vector<std::string>;

TEST(Sweep, MakesEveryCombination) {
  SweepLists lists;
  lists.tokens = {"1k", "2k"};
  lists.block_size = {"256", "512"};
  EXPECT_EQ(names_of(lists),
            (Names{"star:b=256 1024", "star:b=256 2048", "star:b=512 1024", "star:b=512 2048"}));
}

TEST(Sweep, ExactAttentionsTakeNoPartInListsOfStar) {
  SweepLists lists;
  lists.tokens = {"1k"};
  lists.attention = {"star", "ring", "dense"};
  lists.block_size = {"256", "512"};
  lists.anchor_size = {"64"};
  EXPECT_EQ(names_of(lists), (Names{"star:b=256,a=64 1024", "star:b=512,a=64 1024",
                                    "ring:b=256 1024", "ring:b=512 1024", "dense 1024"}));
  lists.attention = {"ring"};  // alone it has to answer for them
  EXPECT_THROW(names_of(lists), Error);
}

TEST(Sweep, RowsAskOnlyWhereThereIsRecall) {
  SweepLists lists;
  lists.tokens = {"1k"};
  lists.recall = {"0", "64"};
  lists.recall_rows = {"16", "32"};
  EXPECT_EQ(names_of(lists), (Names{"star 1024", "star:c=64,q=16 1024", "star:c=64,q=32 1024"}));
}

TEST(Sweep, WeakScalingAndPartsOfRanks) {
  SweepLists lists;
  lists.tokens_a_rank = {"1k"};
  lists.settings = {"star:b=n/P", "ring"};
  EXPECT_EQ(names_of(lists, 4), (Names{"star:b=n/P 4096", "ring 4096"}));
  EXPECT_EQ(points_of(lists, MethodOptions(), 4, false).front().plan.block_size(), 1024);
}

TEST(Sweep, TheAnchorAgainBelongsToPlainStar) {
  SweepLists lists;
  lists.tokens = {"1k"};
  lists.settings = {"star:b=n/2", "star:b=n/2,r=1", "star:b=n/2,c=64", "ring"};
  EXPECT_EQ(names_of(lists, 2, true),
            (Names{"star:b=n/2 1024", "star:b=n/2 1024 again", "star:b=n/2,r=1 1024",
                   "star:b=n/2,c=64 1024", "ring 1024"}));
}

TEST(Sweep, RefusesTooManyPoints) {
  SweepLists lists;
  lists.tokens.assign(101, "1k");
  lists.block_size.assign(100, "256");
  EXPECT_THROW(names_of(lists), Error);
  lists.tokens = {"1k"};
  lists.block_size.assign(101, "256");
  lists.anchor_size.assign(100, "64");
  EXPECT_THROW(names_of(lists), Error);
}

}  // namespace
}  // namespace starattn
