// SPDX-License-Identifier: Apache-2.0
#include "study/measurement.h"

#include <gtest/gtest.h>

#include <fstream>

#include "../temporary_folder.h"
#include "base/error.h"

namespace starattn {
namespace {

constexpr const char* kHead =
    R"({"schema":"starattn-bench-1","date":"d","version":"v","command":"c","model":"m","device":"x"})";

Measurement example() {
  Measurement one;
  one.n_ranks = 2;
  one.n_context = 8192;
  one.setting = "star:b=n/4,a=b/2";
  one.anchor = "broadcast";
  one.block_size = 2048;
  one.operation = "step";
  one.n_queries = 32;
  one.n_new_tokens = 16;
  one.seconds = 0.0123456789;
  one.moved_bytes = 123456789;
  one.digest = "0123";
  one.is_right = true;
  one.phases["phase 2"] = {0.1, 0.2, 0.3, 1};
  return one;
}

class StudyFile : public ::testing::Test {
 protected:
  // The study of a file with these lines; the message where it is refused.
  std::string refusal(const std::string& text) {
    std::ofstream(path_) << text;
    try {
      study_ = read_study(path_);
      return "";
    } catch (const Error& error) {
      EXPECT_EQ(error.exit(), Exit::bad_data);
      return error.what();
    }
  }
  static std::string changed(const std::string& from, const std::string& to) {
    std::string line = to_line(example());
    return std::string(kHead) + "\n" + line.replace(line.find(from), from.size(), to) + "\n";
  }

  TemporaryFolder folder_;
  std::string path_ = folder_.file("study.jsonl");
  Study study_;
};

TEST_F(StudyFile, GivesBackWhatWasWritten) {
  ASSERT_EQ(refusal(kHead + std::string("\n") + to_line(example()) + "\n"), "");
  ASSERT_EQ(study_.measurements.size(), 1U);
  EXPECT_EQ(to_line(study_.measurements[0]), to_line(example()));
  EXPECT_EQ(study_.measurements[0].phases.at("phase 2").slowest, 1);
}

TEST_F(StudyFile, RefusesWhatIsNoStudy) {
  EXPECT_NE(refusal(""), "");
  EXPECT_NE(refusal(to_line(example())), "");
  EXPECT_NE(refusal(R"({"schema":"starattn-bench-2"})").find("'starattn-bench-1'"),
            std::string::npos);
  EXPECT_NE(refusal(changed(R"("ranks":2)", R"("ranks":0)")).find(":2: key 'ranks'"),
            std::string::npos);
  EXPECT_NE(refusal(changed(R"("tokens":8192)", R"("tokens":"8k")")), "");
  EXPECT_NE(refusal(changed("0.0123456789", "-1")).find("key 'seconds'"), std::string::npos);
  EXPECT_NE(refusal(changed("0.0123456789", "0")).find("key 'seconds'"), std::string::npos);
  EXPECT_NE(refusal(changed(R"("min":0.1)", R"("min":null)")), "");
}

TEST(Csv, HasAColumnForEachName) {
  const std::string head = csv_head();
  Measurement one = example();
  one.setting = R"(a "b")";
  const std::string line = to_csv_line(one);
  EXPECT_EQ(std::ranges::count(head, ','), std::ranges::count(line, ','));
  EXPECT_EQ(line.substr(0, line.find(",\"broadcast")), R"(starattn-bench-1,2,8192,"a ""b""")");
}

TEST(ResultKey, IsTheSameOnAnyNumberOfRanks) {
  Measurement other = example();
  other.n_ranks = 8;
  other.setting = "star:b=2k";
  EXPECT_EQ(other.result_key(), example().result_key());
  other.block_size = 1024;
  EXPECT_NE(other.result_key(), example().result_key());
}

}  // namespace
}  // namespace starattn
