// SPDX-License-Identifier: Apache-2.0
// The output of a batch through every accident: any order of completion, a stop at any byte.
#include "io/answer_writer.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <random>

#include "base/error.h"
#include "io/line_digest.h"

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
    for (int d = 0; d < n; ++d) {
      for (int q = 0; q < 2; ++q) all += with_digest(line(d, q)) + "\n";
    }
    return all;
  }
  std::string path() const { return (folder_ / "out.jsonl").string(); }
  // What is said against continuing the output with these; empty where nothing is.
  std::string refusal_of(const Json& settings) const {
    try {
      AnswerWriter(path(), settings, false);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  }
  std::ptrdiff_t n_lines() const {
    const std::string text = content();
    return std::count(text.begin(), text.end(), '\n');
  }
  std::string content() const { return read_file(path(), 1 << 20); }
  // A whole run: expects all, answers in the given order; what is answered already is not put
  // again.
  void run(int n, std::vector<std::pair<int, int>> order, const Json& settings = kSettings) {
    AnswerWriter writer(path(), settings, false);
    for (int d = 0; d < n; ++d) {
      for (int q = 0; q < 2; ++q) writer.expect(fmt::format("d{}", d), std::to_string(q));
    }
    for (const auto& [d, q] : order) {
      const std::string id = fmt::format("d{}", d);
      if (!writer.is_answered(id, std::to_string(q))) writer.put(id, std::to_string(q), line(d, q));
    }
    if (writer.n_left() == 0) writer.finish(/*knows_every_key=*/true);
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
    writer.finish(/*knows_every_key=*/true);
    EXPECT_EQ(writer.n_errors(), 1);
  }
  EXPECT_EQ(content(), with_digest(line(0, 0)) +
                           "\n{\"line\":2,\"id\":\"bad\",\"error\":\"no\"}\n" +
                           with_digest(line(2, 0)) + "\n");
  AnswerWriter writer(path(), kSettings, false);
  EXPECT_TRUE(writer.is_answered("d2", "0"));
  writer.expect("d0", "0");
  writer.expect("bad", "0");
  writer.expect("d2", "0");
  writer.put("bad", "0", R"({"id":"bad","query_id":"0","answer":"now"})");
  writer.finish(/*knows_every_key=*/true);
  EXPECT_EQ(content(), with_digest(line(0, 0)) + "\n" +
                           with_digest(R"({"id":"bad","query_id":"0","answer":"now"})") + "\n" +
                           with_digest(line(2, 0)) + "\n");
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
  const auto refusal = [&](const Json& prefix) {
    Json settings = kSettings;
    settings["query_prefix"] = prefix;
    return refusal_of(settings);
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

// Settings that stand for a default where they are absent (no recall, the markup of 0.1.0).
TEST_F(AnswerWriterTest, RefusesASettingThatOnlyOneSideHas) {
  run(1, shuffled(1, 0));
  Json more = kSettings;
  more["chat_markup"] = "template: x";
  const std::string newer = refusal_of(more);
  EXPECT_NE(newer.find(R"(chat_markup = unset, now it is "template: x". Use version 0.1.0)"),
            std::string::npos)
      << newer;
  more["recall"] = "b/2";
  { AnswerWriter replaced(path(), more, true); }
  EXPECT_EQ(refusal_of(more), "");
  run(1, shuffled(1, 0), more);
  const std::string without = refusal_of(kSettings);
  EXPECT_NE(without.find(R"(chat_markup = "template: x", now it is unset. Use the same settings)"),
            std::string::npos)
      << without;
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
  EXPECT_EQ(content(), with_digest(R"({"id":"same","query_id":"0","answer":"yes"})") +
                           "\n{\"line\":2,\"id\":\"same\",\"error\":\"no\"}\n");
}

TEST_F(AnswerWriterTest, SaysAndAnswersAgainWhatIsWrong) {
  run(4, shuffled(4, 0));
  const std::string good = content();
  std::vector<std::string> lines;
  for (std::size_t at = 0; at < good.size(); at = good.find('\n', at) + 1)
    lines.push_back(good.substr(at, good.find('\n', at) + 1 - at));
  const auto with = [&](std::size_t i, const std::string& text) {
    std::string all;
    for (std::size_t k = 0; k < lines.size(); ++k) all += k == i ? text : lines[k];
    return all;
  };
  std::string without_answer = R"({"id":"d1","query_id":"0"})";
  const std::pair<const char*, std::string> cases[] = {
      {"doubled", with(2, lines[2] + lines[2])},
      {"doubled far behind", good + lines[0]},
      {"no answer", with(2, with_digest(without_answer) + "\n")},
      {"no digest", with(2, line(1, 0) + "\n")},
      {"a note", with(3, "my notes\n" + lines[3])},
      {"another type", with(3, with_digest(R"({"id":"d1","query_id":"1","answer":7})") + "\n")},
      {"zeros", with(5, std::string(40, '\0') + "\n")}};
  for (const auto& [what, text] : cases) {
    std::ofstream(path(), std::ios::trunc) << text;
    run(4, shuffled(4, 5));
    EXPECT_EQ(content(), good) << what;
  }
  for (std::size_t at = 0; at < good.size(); at += 3) {
    std::string flipped = good;
    flipped[at] = static_cast<char>(flipped[at] ^ (1 << at % 7));
    std::ofstream(path(), std::ios::trunc) << flipped;
    run(4, shuffled(4, 5));
    ASSERT_EQ(content(), good) << "a bit of byte " << at;
  }
}

TEST_F(AnswerWriterTest, KeepsWhatStandsBehindADamagedLineOfTheJournal) {
  auto order = shuffled(4, 3);
  order.resize(6);
  run(4, order);
  std::string journal = read_file(path() + ".journal", 1 << 20);
  ASSERT_GT(std::count(journal.begin(), journal.end(), '\n'), 1);
  journal[5] ^= 1;
  std::ofstream(path() + ".journal", std::ios::trunc) << journal;
  const auto last = order.back();
  AnswerWriter writer(path(), kSettings, false);
  EXPECT_TRUE(writer.is_answered(fmt::format("d{}", last.first), std::to_string(last.second)));
}

TEST_F(AnswerWriterTest, ReadsLinesWithoutDigestsOfAFileThatBeganSo) {
  run(2, shuffled(2, 0));
  std::ofstream(path(), std::ios::trunc) << line(0, 0) << "\n" << line(0, 1) << "\n";
  std::ofstream(path() + ".settings.json", std::ios::trunc) << kSettings.dump(2);
  run(2, shuffled(2, 0));
  EXPECT_EQ(content(), line(0, 0) + "\n" + line(0, 1) + "\n" + with_digest(line(1, 0)) + "\n" +
                           with_digest(line(1, 1)) + "\n");
}

TEST_F(AnswerWriterTest, SetsAsideWhatTheInputDoesNotAsk) {
  run(4, shuffled(4, 0));
  const std::string all = content();
  const auto finish_with = [&](std::initializer_list<int> documents) {
    AnswerWriter writer(path(), kSettings, false);
    for (const int d : documents) {
      for (const char* q : {"0", "1"}) {
        const std::string id = fmt::format("d{}", d);
        EXPECT_TRUE(writer.is_answered(id, q)) << id;
        writer.expect(id, q);
      }
    }
    writer.finish(/*knows_every_key=*/true);
  };
  finish_with({0, 2, 3});
  EXPECT_EQ(content().find("\"d1\""), std::string::npos);
  EXPECT_EQ(n_lines(), 6);
  finish_with({0, 2, 3, 1});  // kept in the journal until it is asked again
  EXPECT_EQ(n_lines(), 8);
  EXPECT_NE(content().find("\"d1\""), std::string::npos);
  EXPECT_FALSE(fs::exists(path() + ".journal"));
}

TEST_F(AnswerWriterTest, IsLockedUnderEveryName) {
  const std::string soft = (folder_ / "soft").string();
  const std::string hard = (folder_ / "hard").string();
  const AnswerWriter first(path(), kSettings, false);
  fs::create_symlink("out.jsonl", soft);
  fs::create_hard_link(path(), hard);
  for (const std::string& name : {soft, hard}) {
    try {
      AnswerWriter(name, kSettings, false);
      ADD_FAILURE() << "not locked: " << name;
    } catch (const Error& error) {
      EXPECT_EQ(error.exit(), Exit::cannot_create) << error.what();
      EXPECT_NE(std::string(error.what()).find("another run"), std::string::npos);
    }
    EXPECT_FALSE(fs::exists(name + ".settings.json"));
  }
}

TEST_F(AnswerWriterTest, TakesNoFolderPipeOrDevice) {
  const std::string pipe = (folder_ / "pipe").string();
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  for (const std::string& name : {pipe, folder_.string(), std::string("/dev/null")}) {
    EXPECT_THROW(AnswerWriter(name, kSettings, false), Error);
    EXPECT_FALSE(fs::exists(name + ".settings.json") || fs::exists(name + ".journal"));
  }
}

}  // namespace
}  // namespace starattn
