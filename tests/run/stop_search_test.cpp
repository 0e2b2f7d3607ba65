// SPDX-License-Identifier: Apache-2.0
#include "run/stop_search.h"

#include <gtest/gtest.h>

namespace starattn {
namespace {

class StopSearchTest : public ::testing::Test {
 protected:
  // After how many tokens of the text the search says stop; -1 for never.
  int stops_after(const std::vector<std::string>& stops, std::string_view text,
                  StopSearch::Thinking thinking = StopSearch::Thinking::none) const {
    StopSearch search(*tokenizer_, stops, thinking);
    int n = 0;
    for (const Token token : tokenizer_->encode(text, SpecialTokens::text)) {
      ++n;
      if (search.found_after(token)) return n;
    }
    return -1;
  }
  std::unique_ptr<Tokenizer> tokenizer_ = Tokenizer::open(STARATTN_SOURCE_DIR "/data/demo-model");
};

TEST_F(StopSearchTest, StopsAtTheTokenThatCompletesAStopString) {
  const std::string text = "One line, then “another”, naïve and long.\nAnd a second line.\n";
  const std::vector<Token> tokens = tokenizer_->encode(text, SpecialTokens::text);
  for (std::size_t n = 1; n <= tokens.size(); ++n) {
    // Every piece of the text is a stop string in turn: by definition, decoding all of it finds it.
    const std::string whole = tokenizer_->decode({tokens.begin(), tokens.begin() + n}, true);
    for (const std::size_t length : {1, 2, 5, 17}) {
      if (whole.size() < length || (whole[whole.size() - length] & 0xC0) == 0x80) continue;
      const std::vector<std::string> stops{whole.substr(whole.size() - length)};
      if (stops[0].ends_with("\uFFFD")) continue;  // a character whose last bytes are to come
      int expected = 0;
      std::string grown;
      while (grown.find(stops[0]) == std::string::npos) {
        ++expected;
        grown = tokenizer_->decode({tokens.begin(), tokens.begin() + expected}, true);
      }
      EXPECT_EQ(stops_after(stops, text), expected) << "stop '" << stops[0] << "'";
    }
  }
}

TEST_F(StopSearchTest, TheFirstOfSeveralCountsAndEmptyOnesNever) {
  EXPECT_EQ(first_stop(std::vector<std::string>{"c", "b", ""}, "a b c"), 2);
  EXPECT_EQ(first_stop(std::vector<std::string>{""}, "a"), std::string::npos);
  EXPECT_EQ(stops_after({""}, "some text"), -1);
  EXPECT_EQ(stops_after({}, "some text"), -1);
  EXPECT_EQ(stops_after({"absent", "xyz"}, "some text"), -1);
}

TEST_F(StopSearchTest, WhatIsThoughtStopsNothing) {
  using Thinking = StopSearch::Thinking;
  const auto n_tokens = [&](std::string_view text) {
    return static_cast<int>(tokenizer_->encode(text, SpecialTokens::text).size());
  };
  const std::string thought = "\n<think>It is x, or is it x?\n</think>\n\nIt is";
  EXPECT_EQ(stops_after({"x"}, thought + " x.", Thinking::perhaps), n_tokens(thought + " x"));
  EXPECT_EQ(stops_after({"x"}, thought.substr(8) + " x.", Thinking::open),
            n_tokens(thought.substr(8) + " x"));
  EXPECT_LT(stops_after({"x"}, thought, Thinking::none), n_tokens(thought) / 2);
  EXPECT_EQ(stops_after({"x", "t"}, "<think> It is x", Thinking::perhaps), -1);
  EXPECT_EQ(stops_after({"x", "t"}, "It is x", Thinking::open), -1);
  // Without thinking all of it is the answer, the beginning that might have been a tag included.
  EXPECT_GT(stops_after({"<"}, "<thin ice> x", Thinking::perhaps), n_tokens("<thin"));
  EXPECT_EQ(stops_after({"x"}, "It is x", Thinking::perhaps), n_tokens("It is x"));
}

}  // namespace
}  // namespace starattn
