// SPDX-License-Identifier: Apache-2.0
#include "tokenizer/split.h"

#include <gtest/gtest.h>

#include "tokenizer/unsupported.h"

namespace starattn {
namespace {

using Pieces = std::vector<std::string>;

Pieces split(const std::string& text, SplitBehavior behavior, bool invert = false) {
  Pieces pieces;
  Splitter(Pattern::regex("-", "test"), behavior, invert)(
      text, [&](std::string_view piece) { pieces.emplace_back(piece); });
  return pieces;
}

// The example of the `tokenizers` documentation.
TEST(Splitter, HasFiveBehaviors) {
  const std::string text = "the-final--countdown";
  EXPECT_EQ(split(text, SplitBehavior::removed), (Pieces{"the", "final", "countdown"}));
  EXPECT_EQ(split(text, SplitBehavior::isolated),
            (Pieces{"the", "-", "final", "-", "-", "countdown"}));
  EXPECT_EQ(split(text, SplitBehavior::merged_with_previous),
            (Pieces{"the-", "final-", "-", "countdown"}));
  EXPECT_EQ(split(text, SplitBehavior::merged_with_next),
            (Pieces{"the", "-final", "-", "-countdown"}));
  EXPECT_EQ(split(text, SplitBehavior::contiguous),
            (Pieces{"the", "-", "final", "--", "countdown"}));
}

TEST(Splitter, TreatsTheEndsAlike) {
  EXPECT_EQ(split("-a-", SplitBehavior::merged_with_previous), (Pieces{"-", "a-"}));
  EXPECT_EQ(split("-a-", SplitBehavior::merged_with_next), (Pieces{"-a", "-"}));
  EXPECT_EQ(split("--", SplitBehavior::merged_with_next), (Pieces{"-", "-"}));
  EXPECT_EQ(split("--", SplitBehavior::removed), (Pieces{}));
  EXPECT_EQ(split("", SplitBehavior::isolated), (Pieces{}));
}

TEST(Splitter, Inverts) {
  EXPECT_EQ(split("a-b", SplitBehavior::removed, true), (Pieces{"-"}));
  EXPECT_EQ(split("a-b", SplitBehavior::isolated, true), (Pieces{"a", "-", "b"}));
}

TEST(Splitter, RefusesAnUnknownBehavior) {
  EXPECT_EQ(split_behavior_from_name("Contiguous", "test"), SplitBehavior::contiguous);
  EXPECT_THROW(split_behavior_from_name("Sideways", "test"), UnsupportedTokenizer);
}

}  // namespace
}  // namespace starattn
