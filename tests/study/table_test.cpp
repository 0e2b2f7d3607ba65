// SPDX-License-Identifier: Apache-2.0
#include "study/table.h"

#include <gtest/gtest.h>

#include <sstream>

namespace starattn {
namespace {

std::vector<std::string> words_of(const std::string& line) {
  std::istringstream text(line);
  return {std::istream_iterator<std::string>(text), {}};
}

TEST(StudyTable, ARowHasAWordForEachColumnHoweverLongTheSetting) {
  const std::string setting = "star:b=n/16,a=b/16,c=b/2,q=b/128";
  std::vector<Measurement> repeats(6);
  for (int i = 0; i < 6; ++i) {
    Measurement& one = repeats[static_cast<std::size_t>(i)];
    one.n_ranks = 2;
    one.n_context = 1000;
    one.setting = setting;
    one.anchor = "broadcast";
    one.operation = "phase-1";
    one.flop = 1e9;
    one.product_rate = 1e9;
    one.seconds = 1 + i;
    one.is_right = i != 3;
  }
  EXPECT_EQ(words_of(StudyTable({"ring", setting}).row(repeats)),
            (std::vector<std::string>{"2", "1000", setting, "once", "phase-1", "-", "3.5", "1", "6",
                                      "285.71", "28.6", "0", "0", "1"}));
  // Too few for an interval, and nothing to compare with.
  repeats.resize(1);
  repeats[0].is_right.reset();
  EXPECT_EQ(words_of(StudyTable({setting}).row(repeats)),
            (std::vector<std::string>{"2", "1000", setting, "once", "phase-1", "-", "1", "-", "-",
                                      "1000", "100.0", "0", "0", "-"}));
}

}  // namespace
}  // namespace starattn
