// SPDX-License-Identifier: Apache-2.0
// Where drafts come from: the longest earlier match of the end of a query and its answer, in these
// or else in the document.
#include "star/prompt_lookup.h"

#include <gtest/gtest.h>

namespace starattn {
namespace {

using Tokens = std::vector<Token>;

TEST(PromptLookup, GoesOnAsTheDocumentDid) {
  const Tokens context{1, 2, 3, 4, 5, 6, 7};
  const PromptLookup lookup(context);
  EXPECT_EQ(lookup.draft(Tokens{9, 2, 3}, Tokens{4}, 2), (Tokens{5, 6}));
  EXPECT_EQ(lookup.draft(Tokens{9, 2, 3}, Tokens{4}, 9), (Tokens{5, 6, 7}));
  EXPECT_EQ(lookup.draft(Tokens{9, 2}, Tokens{4}, 2), Tokens{});
  EXPECT_EQ(lookup.draft(Tokens{5, 6, 7}, Tokens{}, 2), Tokens{});  // nothing stands behind
  EXPECT_EQ(lookup.draft(Tokens{2, 3, 4}, Tokens{}, 0), Tokens{});
}

TEST(PromptLookup, TakesTheLongestMatchAndOfEqualsTheLast) {
  const Tokens context{8, 1, 2, 3, 70, 9, 1, 2, 3, 71, 7, 1, 2, 3, 72};
  const PromptLookup lookup(context);
  EXPECT_EQ(lookup.draft(Tokens{9, 1, 2, 3}, Tokens{}, 1), Tokens{71});
  EXPECT_EQ(lookup.draft(Tokens{8, 1, 2}, Tokens{3}, 1), Tokens{70});
  EXPECT_EQ(lookup.draft(Tokens{5, 1, 2, 3}, Tokens{}, 1), Tokens{72});
}

TEST(PromptLookup, AsksTheQueryAndTheAnswerFirst) {
  const Tokens context{1, 2, 3, 70};
  const PromptLookup lookup(context);
  EXPECT_EQ(lookup.draft(Tokens{1, 2, 3, 80, 81}, Tokens{1, 2, 3}, 2), (Tokens{80, 81}));
}

TEST(PromptLookup, TakesShortTextsAndEmptyDocuments) {
  const PromptLookup nothing(Tokens{});
  EXPECT_EQ(nothing.draft(Tokens{1, 2, 3}, Tokens{4}, 4), Tokens{});
  EXPECT_EQ(nothing.draft(Tokens{}, Tokens{}, 4), Tokens{});
  EXPECT_EQ(nothing.draft(Tokens{1}, Tokens{}, 4), Tokens{});
  const Tokens three{1, 2, 3};
  EXPECT_EQ(PromptLookup(three).draft(Tokens{1, 2, 3}, Tokens{}, 4), Tokens{});
}

// Every place of a long text is found again, whatever shares its slot.
TEST(PromptLookup, FindsEveryPlaceOfALongText) {
  Tokens context;
  std::uint64_t state = 1;
  for (int i = 0; i < 20'000; ++i) {
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    context.push_back(static_cast<Token>((state >> 33) % 30'000));
  }
  const NgramIndex index(context);
  for (std::size_t at = 0; at + NgramIndex::kLength < context.size(); at += 97) {
    const std::size_t end = at + NgramIndex::kLength;
    const std::span<const Token> found = index.continuation(std::span(context).first(end));
    ASSERT_FALSE(found.empty());
    EXPECT_EQ(found.front(), context[end]);
  }
}

TEST(DraftLength, StaysAsItIsWhereItIsFixed) {
  DraftLength length(5, /*is_fixed=*/true);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(length.next(), 5);
    length.learn(5, 0);
  }
}

TEST(DraftLength, FollowsWhatCameTrue) {
  DraftLength length(7, /*is_fixed=*/false);
  EXPECT_EQ(length.next(), 7);
  length.learn(7, 2);
  EXPECT_EQ(length.next(), 2);
  length.learn(2, 2);
  EXPECT_EQ(length.next(), 4);
  length.learn(0, 0);  // there was no draft
  EXPECT_EQ(length.next(), 4);
  length.learn(4, 4);
  EXPECT_EQ(length.next(), 7);
}

TEST(DraftLength, PausesLongerEachTimeThatADraftFailsAtOnce) {
  DraftLength length(7, /*is_fixed=*/false);
  const auto pause = [&] {
    length.learn(length.next(), 0);
    int n = 0;
    for (; length.next() == 0; ++n) length.learn(0, 0);
    EXPECT_EQ(length.next(), 1);
    return n;
  };
  for (const int n : {1, 3, 7, 15, 16, 16}) EXPECT_EQ(pause(), n);
  length.learn(1, 1);
  EXPECT_EQ(length.next(), 2);
  EXPECT_EQ(pause(), 1);
}

}  // namespace
}  // namespace starattn
