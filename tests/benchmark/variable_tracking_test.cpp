// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <map>
#include <regex>
#include <set>

#include "benchmark/sample.h"

namespace starattn {
namespace {

// Follows the assignments of a text from top to bottom.
std::set<std::string> names_with(const std::string& value, const std::string& text) {
  static const std::regex kLine("VAR ([A-Z]{5}) = (?:VAR )?([A-Z]{5}|[0-9]{5}) ?\n");
  std::map<std::string, std::string> values;
  for (auto it = std::sregex_iterator(text.begin(), text.end(), kLine);
       it != std::sregex_iterator(); ++it) {
    const std::string source = (*it)[2];
    values[(*it)[1]] =
        std::isdigit(static_cast<unsigned char>(source[0])) ? source : values[source];
  }
  std::set<std::string> names;
  for (const auto& [name, held] : values)
    if (held == value) names.insert(name);
  return names;
}

TEST(VariableTracking, ChainsGiveTheAnswers) {
  const SampleMaker maker = variable_tracking_maker();
  static const std::regex kQuestion(
      "Question: Find all variables that are assigned the value ([0-9]{5}) in the text above\\.");
  for (std::uint64_t key = 0; key < 100; ++key) {
    const Sample sample = maker.make(Random(key), 0, 1 + static_cast<std::int64_t>(key % 20));
    std::smatch match;
    ASSERT_TRUE(std::regex_match(sample.question, match, kQuestion)) << sample.question;
    const std::set<std::string> answers(sample.answers.begin(), sample.answers.end());
    EXPECT_EQ(answers.size(), 5U);
    EXPECT_EQ(names_with(match[1], sample.context), answers);
    EXPECT_NE(sample.answer_prefix.find("5 variables are assigned the value " + match[1].str()),
              std::string::npos);
  }
}

TEST(VariableTracking, EachLineNamesTheOneBefore) {
  const Sample sample = variable_tracking_maker().make(Random(2), 0, 6);
  for (std::size_t i = 1; i < sample.answers.size(); ++i) {
    const std::string line = "VAR " + sample.answers[i] + " = VAR " + sample.answers[i - 1] + " \n";
    EXPECT_NE(sample.context.find(line), std::string::npos) << line;
  }
}

TEST(VariableTracking, BeginsWithASolvedExample) {
  const Sample sample = variable_tracking_maker().make(Random(8), 0, 3);
  const std::size_t second = sample.context.find("\n\nMemorize and track the chain(s)");
  ASSERT_NE(second, std::string::npos);
  const std::string example = sample.context.substr(0, second);
  std::smatch match;
  ASSERT_TRUE(std::regex_search(
      example, match,
      std::regex("5 variables are assigned the value ([0-9]{5}), they are: (([A-Z]{5} ?){5})$")));
  for (const std::string& name : names_with(match[1], example))
    EXPECT_NE(match[2].str().find(name), std::string::npos);
  EXPECT_EQ(names_with(match[1], example).size(), 5U);
}

}  // namespace
}  // namespace starattn
