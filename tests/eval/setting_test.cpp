// SPDX-License-Identifier: Apache-2.0
#include "eval/setting.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "star/auto_setting.h"

namespace starattn {
namespace {

PlanRequest request(const std::string& text, std::int64_t n_context = 1001) {
  return Setting::parse(text).plan_request(n_context);
}

BlockPlan plan(const std::string& text) {
  return BlockPlan::make(request(text), 1001, 1);
}

TEST(Setting, ModesByName) {
  EXPECT_EQ(request("dense").attention, Attention::dense);
  EXPECT_EQ(request("ring").attention, Attention::ring);
  EXPECT_EQ(request("star").attention, Attention::star);
  EXPECT_FALSE(request("star").block_size);
  EXPECT_FALSE(request("star").anchor_size);
  EXPECT_TRUE(Setting::parse("dense").is_exact());
  EXPECT_FALSE(Setting::parse("star:r=all").is_exact());
  EXPECT_EQ(Setting::parse("star:b=n/4,a=b").name(), "star:b=n/4,a=b");
  for (const char* text : {"dense", "ring", "star", "star:b=n", "star:a=b/3,r=all", "star:b=5,a=0"})
    EXPECT_EQ(Setting::parse(text).name(), text);
  EXPECT_EQ(Setting::parse("star:r=2,a=1k,b=n/1").name(), "star:b=n,a=1024,r=2");
  EXPECT_EQ(Setting::parse("star:r=0").name(), "star");
}

TEST(Setting, SizesAreTokensOrPartsRoundedUp) {
  EXPECT_EQ(request("star:b=2k").block_size, 2048);
  EXPECT_EQ(request("star:b=n/4").block_size, 251);
  EXPECT_EQ(request("star:b=n").block_size, 1001);
  EXPECT_EQ(plan("star:b=n/4,a=b/2").anchor_size(), 126);
  EXPECT_EQ(plan("star:a=b,b=n/4").anchor_size(), 251);
  EXPECT_EQ(plan("star:b=n/4,a=0").anchor_size(), 0);
  EXPECT_EQ(plan("star:b=n/4,a=auto").anchor_size(), 251);
  EXPECT_EQ(plan("star:b=500,a=auto,c=auto").anchor_size(), 256);
  EXPECT_EQ(plan("star:b=500,c=auto").recall(), 250);
  EXPECT_EQ(Setting::parse("star:a=auto,c=auto").name(), "star:a=auto,c=b/2");
  EXPECT_EQ(plan("star:a=b/2").anchor_size(), auto_block_size(1001) / 2);
  EXPECT_EQ(request("star:r=2").reach, 2);
  EXPECT_EQ(request("star:r=all").reach, kReachAll);
}

TEST(Setting, RefusesAnythingElse) {
  for (const char* text : {"",           "sta",         "star:",
                           "star:b",     "star:b=",     "star:b=0",
                           "star:b=n/0", "star:b=n/-1", "star:b=n4",
                           "star:b=b",   "star:a=n/2",  "star:b=1,b=2",
                           "star:d=1",   "star:b=1,",   "star:,b=1",
                           "star:r=-1",  "star:r=some", "dense:b=1",
                           "dense:",     "ring:r=1",    "star:b=n/99999999999999999999",
                           "star:b=1e3", "star b=1"}) {
    EXPECT_THROW(Setting::parse(text), Error) << text;
  }
  try {
    Setting::parse("star:b=n/x");
  } catch (const Error& error) {
    EXPECT_EQ(error.exit(), Exit::usage);
    EXPECT_NE(std::string(error.what()).find("--setting 'star:b=n/x'"), std::string::npos);
  }
}

TEST(Setting, SaysWhatIsRecalled) {
  const Setting setting = Setting::parse("star:c=b/2,b=n/16,a=b/16,q=b/8");
  EXPECT_EQ(setting.name(), "star:b=n/16,a=b/16,c=b/2,q=b/8");
  const BlockPlan plan = BlockPlan::make(setting.plan_request(8192), 8192, 1);
  EXPECT_EQ(plan.recall(), 256);
  EXPECT_EQ(plan.anchor_size(), 32);
  EXPECT_EQ(plan.recall_rows(), 64);
  for (const char* bad : {"star:c=b/2,r=1", "star:q=b/8", "star:c=n/4", "dense:c=4"})
    EXPECT_THROW(Setting::parse(bad), Error) << bad;
}

}  // namespace
}  // namespace starattn
