// SPDX-License-Identifier: Apache-2.0
#include "simulate/timeline.h"

#include <gtest/gtest.h>

namespace starattn {
namespace {

const Links kLinks{.ranks_per_node = 2, .near = {0.5, 10}, .far = {2, 5}};

TEST(Timeline, AMessageTakesItsStartAndItsBytes) {
  for (const Rank to : {1, 2}) {
    Timeline timeline(4, kLinks);
    timeline.compute(0, 3);
    const Timeline::Message message = timeline.send(0, 20, {&to, 1});
    timeline.wait(to, message);
    timeline.compute(to, 1);
    timeline.run();
    EXPECT_DOUBLE_EQ(timeline.seconds(), to == 1 ? 3 + 0.5 + 2 + 1 : 3 + 2 + 4 + 1);
    EXPECT_DOUBLE_EQ(timeline.waited(to), to == 1 ? 5.5 : 9);
    EXPECT_DOUBLE_EQ(timeline.n_bytes(), 20);
  }
}

TEST(Timeline, TheRanksOfANodeTakeWhatWentOutOnce) {
  Timeline timeline(3, {.ranks_per_node = 3, .near = {0, 10}, .far = {0, 1}});
  const Rank readers[] = {1, 2};
  const Timeline::Message first = timeline.send(0, 20, readers);
  timeline.wait(1, first);
  timeline.wait(2, first + 1);
  timeline.run();
  EXPECT_DOUBLE_EQ(timeline.seconds(), 2);
  EXPECT_DOUBLE_EQ(timeline.n_bytes(), 20);
}

TEST(Timeline, MessagesToOneRankComeOneAfterAnother) {
  Timeline timeline(4, {.ranks_per_node = 1, .near = {}, .far = {0, 10}});
  const Rank root = 0;
  for (const Rank from : {1, 2, 3}) timeline.wait(0, timeline.send(from, 20, {&root, 1}));
  timeline.run();
  EXPECT_DOUBLE_EQ(timeline.seconds(), 3 * 2);
}

TEST(Timeline, AChainOfNodesHandsOnPiecesWhileMoreCome) {
  Timeline timeline(6, {.ranks_per_node = 2, .near = {0, 1e9}, .far = {1, 10}});
  const Rank readers[] = {1, 2, 3, 4, 5};
  const Timeline::Message first = timeline.send_on_and_on(0, 100, 10, readers);
  for (const Rank rank : readers) timeline.wait(rank, first + static_cast<unsigned>(rank) - 1);
  timeline.run();
  EXPECT_NEAR(timeline.waited(2), 1 + 10, 1e-6);            // start, and all pieces
  EXPECT_NEAR(timeline.waited(4), 1 + 10 + (1 + 1), 1e-6);  // a start and a piece later
}

TEST(Timeline, ASlowRankComputesSlowly) {
  Timeline timeline(2, kLinks);
  timeline.compute(0, 3);
  timeline.compute(1, 2);
  timeline.slow_down(1, 2);
  timeline.run();
  EXPECT_DOUBLE_EQ(timeline.seconds(), 4);
}

TEST(Timeline, WhereRanksCopyThemselvesItTakesTheirTime) {
  Timeline timeline(2, {.ranks_per_node = 2, .near = {0, 10}, .far = {}, .takes_time = true});
  const Rank to = 1;
  const Timeline::Message message = timeline.send(0, 20, {&to, 1});
  timeline.compute(0, 1);
  timeline.compute(1, 5);
  timeline.wait(1, message);
  timeline.run();
  EXPECT_DOUBLE_EQ(timeline.seconds(), 5 + 2);
  EXPECT_DOUBLE_EQ(timeline.waited(1), 0);
}

}  // namespace
}  // namespace starattn
