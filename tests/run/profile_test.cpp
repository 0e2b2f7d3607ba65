// SPDX-License-Identifier: Apache-2.0
// What the tables of --profile say of what was counted.
#include "run/profile.h"

#include <gtest/gtest.h>

namespace starattn {
namespace {

Profile::Operation operation(const char* name, double flop, double n_bytes, double seconds) {
  Profile::Operation one;
  one.all.phase = "phase 1";
  one.all.name = name;
  one.all.lane = trace::Lane::compute;
  one.all.n_calls = 4;
  one.all.flop = flop;
  one.all.n_bytes = n_bytes;
  one.all.seconds = 2 * seconds;  // of two ranks
  one.seconds = {seconds, seconds, seconds, 1};
  return one;
}

Profile two_ranks() {
  Profile profile;
  profile.n_ranks = 2;
  profile.phases = {{"phase 1", {9, 10, 11, 1}}};
  profile.operations = {operation("gate and up", 8e12, 1e9, 4), operation("norm", 0, 2e9, 2)};
  profile.messages = {{"recall", 6, 2048, {0, 0.5, 1, 1}}};
  return profile;
}

TEST(Profile, TheNearerCeilingCounts) {
  const Ceilings both{2e12, 1e9, "a machine"};
  EXPECT_DOUBLE_EQ(share_of_ceiling(operation("p", 8e12, 1e9, 4), both), 0.5);   // 4 s of 8
  EXPECT_DOUBLE_EQ(share_of_ceiling(operation("p", 8e12, 6e9, 4), both), 0.75);  // 6 s of 8
  EXPECT_DOUBLE_EQ(share_of_ceiling(operation("p", 0, 0, 4), both), 0);
}

TEST(Profile, WithoutARateOfBytesWhatIsBoundByThemHasNoCeiling) {
  const Ceilings products{2e12, 0, "products"};
  EXPECT_DOUBLE_EQ(share_of_ceiling(operation("p", 8e12, 1e9, 4), products), 0.5);
  EXPECT_DOUBLE_EQ(share_of_ceiling(operation("p", 63e9, 1e9, 4), products), 0);
  EXPECT_DOUBLE_EQ(share_of_ceiling(operation("p", 8e12, 1e9, 4), {}), 0);
}

TEST(Profile, ATableHasWhatRemainsAndTheSlowestRank) {
  std::string table;
  for (const std::string& line : to_table(two_ranks(), {2e12, 1e9, "a machine"}))
    table += line + "\n";
  for (const char* part :
       {"phase 1, 10 s a rank", "gate and up", "40.0 %", "rank 1 4", "beside operations", "40.0 %",
        "ceiling: 2 TFLOP/s or 1 GB/s of a rank, as measured of a machine", "2.00 KiB"})
    EXPECT_NE(table.find(part), std::string::npos) << part << " in\n" << table;
}

TEST(Profile, JsonHasNumbersWithoutUnits) {
  const Json json = to_json(two_ranks(), {});
  EXPECT_EQ(json["schema"], "starattn-profile-1");
  EXPECT_EQ(json["operations"][0]["flop"], 8e12);
  EXPECT_EQ(json["operations"][0]["seconds"]["slowest"], 1);
  EXPECT_FALSE(json["operations"][0].contains("share_of_ceiling"));
  EXPECT_EQ(json["messages"][0]["wait_seconds"]["mean"], 0.5);
  EXPECT_EQ(json["phases"][0]["seconds"]["max"], 11);
}

}  // namespace
}  // namespace starattn
