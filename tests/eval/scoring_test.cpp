// SPDX-License-Identifier: Apache-2.0
#include "eval/scoring.h"

#include <gtest/gtest.h>

namespace starattn {
namespace {

double score(const char* task, const std::string& answer,
             const std::vector<std::string>& references, const std::string& question = "") {
  return score_answer(*find_task(task), answer, references, question);
}

TEST(Scoring, AllIsTheShareOfReferencesContained) {
  EXPECT_EQ(score("niah_single_1", " 1234567.", {"1234567"}), 1);
  EXPECT_EQ(score("niah_single_1", " 123456", {"1234567"}), 0);
  EXPECT_EQ(score("vt", "abcde FGHIJ", {"ABCDE", "FGHIJ", "KLMNO", "PQRST"}), 0.5);
  EXPECT_EQ(score("cwe", "", {"a"}), 0);
}

TEST(Scoring, AnyIsOneReferenceContained) {
  EXPECT_EQ(score("qa_1", "It is the Moon.", {"sun", "moon"}), 1);
  EXPECT_EQ(score("qa_2", "It is the star.", {"sun", "moon"}), 0);
}

TEST(Scoring, LabelsAreThoseOfTheFirstSentenceLessTheQuestions) {
  const std::string where = "Where was the milk before the garden?";
  EXPECT_EQ(score("qa3", " Office.", {"office"}, where), 1);
  EXPECT_EQ(score("qa3", "Before the garden it was in the office. Kitchen.", {"office"}, where), 1);
  EXPECT_EQ(score("qa3", "\n office\nkitchen", {"office"}, where), 1);
  EXPECT_EQ(score("qa3", "The office or the kitchen.", {"office"}, where), 0);
  EXPECT_EQ(score("qa3", "The garden.", {"office"}, where), 0);
  EXPECT_EQ(score("qa3", "I do not know. Office.", {"office"}, where), 0);
  EXPECT_EQ(score("qa3", "", {"office"}, where), 0);
  EXPECT_EQ(score("qa3", "In the attic.", {"attic"}, where), 0);  // no label
  EXPECT_EQ(score("qa5", "Fred gave it to JEFF", {"Jeff"}, "Who did Fred give the apple to?"), 1);
  EXPECT_EQ(score("qa5", "the milk", {"apple"}, "What did Fred give to Jeff?"), 0);
  EXPECT_EQ(score("qa5", "the apple in the office", {"apple"}, "What did Fred give to Jeff?"), 1);
}

// Values of the formula worked out by hand elsewhere, to four places.
TEST(Scoring, WilsonIntervals) {
  const Interval half = wilson_interval(0.5, 10);
  EXPECT_NEAR(half.low, 0.2366, 5e-5);
  EXPECT_NEAR(half.high, 0.7634, 5e-5);
  const Interval none = wilson_interval(0, 20);
  EXPECT_EQ(none.low, 0);
  EXPECT_NEAR(none.high, 0.1611, 5e-5);
  const Interval all = wilson_interval(1, 20);
  EXPECT_NEAR(all.low, 0.8389, 5e-5);
  EXPECT_EQ(all.high, 1);
  EXPECT_EQ(wilson_interval(0, 0).high, 1);
  EXPECT_LT(wilson_interval(0.9, 1000).high - wilson_interval(0.9, 1000).low, 0.04);
}

}  // namespace
}  // namespace starattn
