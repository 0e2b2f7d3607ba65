// SPDX-License-Identifier: Apache-2.0
// The equalities of recall: the same bits on any number of ranks, dense where everything is
// recalled, a larger anchor where all of that is.
#include "equalities.h"

namespace starattn::testing {
namespace {

class RecallEqualities : public Equalities {};

TEST_F(RecallEqualities, HasTheSameBitsOnAnyRanks) {
  for (const std::int64_t recall : {1, 30, 100}) {
    for (const std::int64_t anchor : {0, 10, 60}) {
      Setting setting;
      setting.block = 60;
      setting.anchor = anchor;
      setting.recall = recall;
      expect_same_bits_as_alone(setting);
    }
  }
}

TEST_F(RecallEqualities, WorksInRaggedCases) {
  for (const std::int64_t n : {1, 60, 61, 119, 121, 305}) {
    for (const std::int64_t rows : {1, 60}) {
      Setting setting;
      setting.n_context = n;
      setting.block = 60;
      setting.anchor = 7;
      setting.recall = 40;
      setting.recall_rows = rows;
      expect_same_bits_as_alone(setting);
    }
  }
}

TEST_F(RecallEqualities, OfKeysInFp8HasTheSameBitsOnAnyRanks) {
  Setting setting;
  setting.has_f8_kv = true;
  setting.block = 70;
  setting.anchor = 20;
  setting.recall = 40;
  expect_same_bits_as_alone(setting);
  setting.kv_memory = KvMemory::host;
  expect_same_bits_as_alone(setting);
}

TEST_F(RecallEqualities, OfEverythingIsDense) {
  for (const std::int64_t anchor : {0, 20, 70}) {
    Setting setting;
    setting.block = 70;
    setting.anchor = anchor;
    setting.recall = 700;
    expect_close_to_dense(setting);
  }
}

TEST_F(RecallEqualities, OfAllTheAnchorIsALargerAnchor) {
  Setting larger;
  larger.n_context = 160;
  larger.block = 80;
  larger.anchor = 80;
  Setting recall = larger;
  recall.anchor = 30;
  recall.recall = 50;  // the rest of the only block before
  const Outcome one = run(world_, larger);
  const Outcome other = run(world_, recall);
  expect_close(one, other);
}

TEST_F(RecallEqualities, OfOneBlockIsDense) {
  Setting setting;
  setting.block = 1000;
  setting.anchor = 100;
  setting.recall = 50;
  expect_close_to_dense(setting);
}

TEST_F(RecallEqualities, IsNeitherStarNorDense) {  // the tests above could not tell otherwise
  Setting setting;
  setting.block = 70;
  setting.anchor = 10;
  setting.recall = 20;
  const Outcome recall = run(world_, setting);
  setting.recall = 0;
  const Outcome star = run(world_, setting);
  setting.attention = Attention::dense;
  expect_far(recall, star);
  expect_far(recall, run_alone(world_, setting));
}

TEST_F(RecallEqualities, FromHostMemoryHasTheSameBits) {
  Setting setting;
  setting.block = 60;
  setting.anchor = 20;
  setting.recall = 30;
  const Outcome device = run(world_, setting);
  setting.kv_memory = KvMemory::host;
  const Outcome host = run(world_, setting);
  EXPECT_EQ(device.answers, host.answers);
  if (world_.is_root()) {
    EXPECT_TRUE(same_bits(device.logits, host.logits));
  }
}

}  // namespace
}  // namespace starattn::testing
