// SPDX-License-Identifier: Apache-2.0
// Where blocks live: all ranks of a group decide alike, by the one that has least room.
#include "run/kv_memory.h"

#include <gtest/gtest.h>

namespace starattn {
namespace {

class KvMemoryChoice : public ::testing::Test {
 protected:
  bool is_last() const { return group_.rank() + 1 == group_.size(); }
  KvMemory choose(const char* option, std::optional<std::uint64_t> free_bytes) const {
    return choose_kv_memory(option, need_, free_bytes, group_);
  }

  Communicator group_ = Communicator::world();
  MemoryNeed need_{.weights = 1000, .own_kv = 60, .host_kv = 5000, .anchor = 30, .workspace = 10};
};

TEST_F(KvMemoryChoice, TakesTheDeviceWhereAllButTheLoadedWeightsFits) {
  EXPECT_EQ(choose("auto", 100), KvMemory::device);
  EXPECT_EQ(choose("auto", 99), KvMemory::host);
}

TEST_F(KvMemoryChoice, FollowsTheRankWithLeastRoom) {
  EXPECT_EQ(choose("auto", is_last() ? 99 : 1'000'000), KvMemory::host);
}

TEST_F(KvMemoryChoice, DoesAsItIsToldWhateverFits) {
  EXPECT_EQ(choose("device", 0), KvMemory::device);
  EXPECT_EQ(choose("host", 1'000'000), KvMemory::host);
}

TEST_F(KvMemoryChoice, KnowsOneMemoryWithoutADevice) {
  for (const char* option : {"auto", "device", "host"})
    EXPECT_EQ(choose(option, std::nullopt), KvMemory::device) << option;
}

}  // namespace
}  // namespace starattn
