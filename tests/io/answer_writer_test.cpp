// SPDX-License-Identifier: Apache-2.0
// The output of a batch through every accident: any order of completion, a stop at any byte.
#include "io/answer_writer.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <random>

#include "base/error.h"

namespace starattn {
namespace {

namespace fs = std::filesystem;
const Json kSettings = {{"model", "tiny"}, {"max_new_tokens", 8}};

class AnswerWriterTest : public ::testing::Test {
 protected:
  AnswerWriterTest()
      : folder_(fs::temp_directory_path() / fmt::format("starattn-writer-{}", ::getpid())) {
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }
  ~AnswerWriterTest() override { fs::remove_all(folder_); }

  static std::string line(int document, int query) {
    return fmt::format(R"({{"id":"d{}","query_id":"{}","answer":"{}"}})", document, query,
                       std::string(document % 7, 'x'));
  }
  static std::string everything(int n) {
    std::string all;
    for (int d = 0; d < n; ++d) all += line(d, 0) + "\n" + line(d, 1) + "\n";
    return all;
  }
  std::string path() const { return (folder_ / "out.jsonl").string(); }
  std::string content() const { return read_file(path(), 1 << 20); }
  // A whole run: expects all, answers in the given order; what is answered already is not put
  // again.
  void run(int n, std::vector<std::pair<int, int>> order) {
    AnswerWriter writer(path(), kSettings, false);
    for (int d = 0; d < n; ++d) {
      for (int q = 0; q < 2; ++q) writer.expect(fmt::format("d{}", d), std::to_string(q));
    }
    for (const auto& [d, q] : order) {
      const std::string id = fmt::format("d{}", d);
      if (!writer.is_answered(id, std::to_string(q))) writer.put(id, std::to_string(q), line(d, q));
    }
    if (writer.n_left() == 0) writer.finish();
  }
  static std::vector<std::pair<int, int>> shuffled(int n, unsigned seed) {
    std::vector<std::pair<int, int>> order;
    for (int d = 0; d < n; ++d) {
      for (int q = 0; q < 2; ++q) order.emplace_back(d, q);
    }
    std::shuffle(order.begin(), order.end(), std::mt19937(seed));
    return order;
  }

  fs::path folder_;
};

TEST_F(AnswerWriterTest, KeepsInputOrderWhateverTheOrderOfCompletion) {
  for (unsigned seed = 0; seed < 10; ++seed) {
    run(8, shuffled(8, seed));
    EXPECT_EQ(content(), everything(8));
    EXPECT_FALSE(fs::exists(path() + ".journal"));
    fs::remove(path());
  }
}

TEST_F(AnswerWriterTest, StoppedAtAnyByteNothingIsLostDoubledOrTorn) {
  auto order = shuffled(4, 3);
  order.resize(6);
  run(4, order);
  const std::string output = content();
  const std::string journal = read_file(path() + ".journal", 1 << 20);
  ASSERT_FALSE(journal.empty());
  for (std::size_t cut = 0; cut <= output.size() + journal.size(); ++cut) {
    // The journal is written last here, so it is cut first.
    std::ofstream(path(), std::ios::trunc) << output.substr(
        0, cut > journal.size() ? output.size() - (cut - journal.size()) : output.size());
    std::ofstream(path() + ".journal", std::ios::trunc)
        << journal.substr(0, journal.size() - std::min(cut, journal.size()));
    run(4, shuffled(4, 9));
    ASSERT_EQ(content(), everything(4)) << "cut " << cut;
  }
}

TEST_F(AnswerWriterTest, ErrorLinesAreTriedAgainInTheirPlace) {
  {
    AnswerWriter writer(path(), kSettings, false);
    writer.expect("d0", "0");
    writer.put("d0", "0", line(0, 0));
    writer.expect_error(R"({"line":2,"id":"bad","error":"no"})");
    writer.expect("d2", "0");
    writer.put("d2", "0", line(2, 0));
    writer.finish();
    EXPECT_EQ(writer.n_errors(), 1);
  }
  EXPECT_EQ(content(),
            line(0, 0) + "\n{\"line\":2,\"id\":\"bad\",\"error\":\"no\"}\n" + line(2, 0) + "\n");
  AnswerWriter writer(path(), kSettings, false);
  EXPECT_TRUE(writer.is_answered("d2", "0"));
  writer.expect("d0", "0");
  writer.expect("bad", "0");
  writer.expect("d2", "0");
  writer.put("bad", "0", R"({"id":"bad","query_id":"0","answer":"now"})");
  writer.finish();
  EXPECT_EQ(content(), line(0, 0) + "\n{\"id\":\"bad\",\"query_id\":\"0\",\"answer\":\"now\"}\n" +
                           line(2, 0) + "\n");
}

TEST_F(AnswerWriterTest, RefusesOtherSettingsAndFilesThatAreNotOurs) {
  run(1, shuffled(1, 0));
  Json other = kSettings;
  other["max_new_tokens"] = 9;
  EXPECT_THROW(AnswerWriter(path(), other, false), Error);
  { AnswerWriter replaced(path(), other, true); }
  EXPECT_EQ(content(), "");
  fs::remove(path() + ".settings.json");
  std::ofstream(path()) << "my notes\n";
  EXPECT_THROW(AnswerWriter(path(), kSettings, false), Error);
  EXPECT_EQ(content(), "my notes\n");
}

// Outputs that were begun before --query-prefix existed had none.
TEST_F(AnswerWriterTest, NamesTheOptionThatContinuesAnOlderOutput) {
  const auto refusal = [&](const Json& prefix) -> std::string {
    Json settings = kSettings;
    settings["query_prefix"] = prefix;
    try {
      AnswerWriter(path(), settings, false);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  run(1, shuffled(1, 0));
  EXPECT_EQ(refusal(""), "");
  const std::string before = refusal(kDefaultQueryPrefix);
  EXPECT_NE(before.find("Pass --query-prefix '' to continue it"), std::string::npos) << before;

  fs::remove(path() + ".settings.json");
  std::ofstream(path() + ".settings.json")
      << R"({"model": "tiny", "max_new_tokens": 8, "query_prefix": "\n'Q"})";
  const std::string other = refusal("");
  EXPECT_NE(other.find(R"(Pass --query-prefix $'\n\'Q' to)"), std::string::npos) << other;
  std::ofstream(path() + ".settings.json")
      << Json({{"model", "tiny"}, {"max_new_tokens", 8}, {"query_prefix", kDefaultQueryPrefix}});
  const std::string standard = refusal("");
  EXPECT_NE(standard.find("Leave --query-prefix out"), std::string::npos) << standard;
}

TEST_F(AnswerWriterTest, OverwriteKeepsAnswersOfTheSameSettings) {
  run(2, shuffled(2, 0));
  { AnswerWriter same(path(), kSettings, true); }
  EXPECT_EQ(content(), everything(2));
  std::ofstream(path() + ".settings.json") << "{torn";
  EXPECT_THROW(AnswerWriter(path(), kSettings, false), Error);
  EXPECT_EQ(content(), everything(2));
  { AnswerWriter replaced(path(), kSettings, true); }
  EXPECT_EQ(content(), "");
}

TEST_F(AnswerWriterTest, AnErrorTakesThePlaceOfItsLineOnly) {
  AnswerWriter writer(path(), kSettings, false);
  writer.expect("same", "0", 1);
  writer.expect("same", "1", 2);  // the same document id, on another line
  writer.expect("same", "2", 2);
  writer.put_error(2, R"({"line":2,"id":"same","error":"no"})");
  writer.put("same", "0", R"({"id":"same","query_id":"0","answer":"yes"})");
  EXPECT_EQ(writer.n_left(), 0);
  EXPECT_EQ(content(),
            "{\"id\":\"same\",\"query_id\":\"0\",\"answer\":\"yes\"}\n"
            "{\"line\":2,\"id\":\"same\",\"error\":\"no\"}\n");
}

TEST_F(AnswerWriterTest, KnowsRepeatedKeys) {
  AnswerWriter writer(path(), kSettings, false);
  EXPECT_FALSE(writer.is_repeated("a", "b"));
  EXPECT_FALSE(writer.is_repeated("ab", ""));
  EXPECT_TRUE(writer.is_repeated("a", "b"));
}

}  // namespace
}  // namespace starattn
