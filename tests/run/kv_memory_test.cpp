// SPDX-License-Identifier: Apache-2.0
// Where blocks live: all ranks of a group decide alike, by the one that has least room.
#include "run/kv_memory.h"

#include <gtest/gtest.h>

namespace starattn {
namespace {

class KvMemoryChoice : public ::testing::Test {
 protected:
  bool is_last() const { return group_.rank() + 1 == group_.size(); }
  KvMemory choose(const char* option, std::optional<bool> fits) const {
    return choose_kv_memory(option, fits, group_);
  }

  Communicator group_ = Communicator::world();
};

TEST_F(KvMemoryChoice, TakesTheDeviceWhereItFits) {
  EXPECT_EQ(choose("auto", true), KvMemory::device);
  EXPECT_EQ(choose("auto", false), KvMemory::host);
}

TEST_F(KvMemoryChoice, FollowsTheRankWithLeastRoom) {
  EXPECT_EQ(choose("auto", !is_last()), KvMemory::host);
}

TEST_F(KvMemoryChoice, DoesAsItIsToldWhateverFits) {
  EXPECT_EQ(choose("device", false), KvMemory::device);
  EXPECT_EQ(choose("host", true), KvMemory::host);
}

TEST_F(KvMemoryChoice, KnowsOneMemoryWithoutADevice) {
  for (const char* option : {"auto", "device", "host"})
    EXPECT_EQ(choose(option, std::nullopt), KvMemory::device) << option;
}

}  // namespace
}  // namespace starattn
