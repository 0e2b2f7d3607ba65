// SPDX-License-Identifier: Apache-2.0
// Reads the needles back from the text and answers the question from them alone.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <regex>
#include <set>

#include "benchmark/sample.h"

namespace starattn {
namespace {

struct Expected {
  const char* task;
  std::size_t n_needles;  // 0: all lines are
  std::size_t n_answers;
  const char* question;
};

const Expected kExpected[] = {
    {"niah_single_1", 1, 1, "What is the special magic number for "},
    {"niah_single_2", 1, 1, "What is the special magic number for "},
    {"niah_single_3", 1, 1, "What is the special magic uuid for "},
    {"niah_multikey_1", 4, 1, "What is the special magic number for "},
    {"niah_multikey_2", 0, 1, "What is the special magic number for "},
    {"niah_multikey_3", 0, 1, "What is the special magic uuid for "},
    {"niah_multivalue", 4, 4, "What are all the special magic numbers for "},
    {"niah_multiquery", 4, 4, "What are all the special magic numbers for "}};

using Values = std::multimap<std::string, std::string>;

Values read_needles(const std::string& text) {
  static const std::regex kNeedle(
      "One of the special magic (?:numbers|uuids) for ([a-z0-9-]+) is: ([0-9a-f-]+)\\.");
  Values values;
  for (auto it = std::sregex_iterator(text.begin(), text.end(), kNeedle);
       it != std::sregex_iterator(); ++it)
    values.emplace((*it)[1], (*it)[2]);
  return values;
}

std::vector<std::string> asked_keys(const std::string& question) {
  std::string list = question.substr(question.find(" for ") + 5);
  list = list.substr(0, list.find(" mentioned"));
  std::vector<std::string> keys;
  static const std::regex kKey("[a-z0-9]+(?:-[a-z0-9]+)+");
  for (auto it = std::sregex_iterator(list.begin(), list.end(), kKey); it != std::sregex_iterator();
       ++it)
    keys.push_back(it->str());
  return keys;
}

TEST(Needles, TextAnswersTheQuestion) {
  const Materials materials;
  for (const Expected& expected : kExpected) {
    const SampleMaker maker = needle_maker(*find_task(expected.task), materials);
    for (std::uint64_t key = 0; key < 50; ++key) {
      const Sample sample = maker.make(Random(key), 0, 30);
      const Values values = read_needles(sample.context);
      EXPECT_EQ(values.size(), expected.n_needles == 0 ? 31 : expected.n_needles);
      EXPECT_EQ(sample.question.rfind(expected.question, 0), 0U) << sample.question;
      std::vector<std::string> found;
      for (const std::string& asked : asked_keys(sample.question)) {
        EXPECT_NE(sample.answer_prefix.find(asked), std::string::npos);
        const auto [first, last] = values.equal_range(asked);
        for (auto it = first; it != last; ++it) found.push_back(it->second);
      }
      std::vector<std::string> answers = sample.answers;
      EXPECT_EQ(answers.size(), expected.n_answers);
      std::sort(found.begin(), found.end());
      std::sort(answers.begin(), answers.end());
      EXPECT_EQ(found, answers) << sample.question;
      EXPECT_EQ(std::set<std::string>(answers.begin(), answers.end()).size(), answers.size());
    }
  }
}

// So many draws that two would meet if nothing kept them apart.
TEST(Needles, NothingHasTheKeyThatIsAskedFor) {
  const Materials materials;
  const SampleMaker four = needle_maker(*find_task("niah_multiquery"), materials);
  for (std::uint64_t key = 0; key < 20000; ++key) {
    const auto keys = asked_keys(four.make(Random(key), 0, 1).question);
    ASSERT_EQ(std::set<std::string>(keys.begin(), keys.end()).size(), 4U) << key;
  }
  const SampleMaker many = needle_maker(*find_task("niah_multikey_2"), materials);
  for (std::uint64_t key = 0; key < 20; ++key) {
    const Sample sample = many.make(Random(key), 0, 10000);
    const std::string asked = " for " + asked_keys(sample.question).at(0) + " is: ";
    const std::size_t first = sample.context.find(asked);
    ASSERT_NE(first, std::string::npos);
    EXPECT_EQ(sample.context.find(asked, first + 1), std::string::npos) << asked;
  }
}

TEST(Needles, WordsOfTheBenchmark) {
  const Materials materials;
  const Sample one = needle_maker(*find_task("niah_single_3"), materials).make(Random(1), 0, 2);
  EXPECT_EQ(one.context.rfind("A special magic uuid is hidden within the following text. Make sure "
                              "to memorize it. I will quiz you about the uuid afterwards.\n",
                              0),
            0U);
  EXPECT_TRUE(std::regex_match(
      one.answers[0],
      std::regex("[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")));
  const Sample four = needle_maker(*find_task("niah_multiquery"), materials).make(Random(1), 0, 2);
  EXPECT_EQ(four.context.rfind("Some special magic numbers are hidden within the following text. "
                               "Make sure to memorize it. I will quiz you about the numbers "
                               "afterwards.\n",
                               0),
            0U);
  EXPECT_TRUE(std::regex_match(four.answer_prefix,
                               std::regex(" The special magic numbers for ([a-z]+-[a-z]+, ){3}and "
                                          "[a-z]+-[a-z]+ mentioned in the provided text are")));
  EXPECT_TRUE(std::regex_match(four.answers[0], std::regex("[1-9][0-9]{6}")));
}

}  // namespace
}  // namespace starattn
