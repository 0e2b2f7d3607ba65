// SPDX-License-Identifier: Apache-2.0
#include "io/line_reader.h"

#include <gtest/gtest.h>

#include <vector>

#include "../temporary_folder.h"

namespace starattn {
namespace {

class LineReaderTest : public ::testing::Test {
 protected:
  std::vector<Line> lines_of(const std::string& bytes) {
    folder.write("in.jsonl", bytes);
    LineReader reader(folder.file("in.jsonl"));
    std::vector<Line> lines;
    while (std::optional<Line> line = reader.next()) lines.push_back(std::move(*line));
    EXPECT_FALSE(reader.next()) << "the end is the end";
    return lines;
  }

  TemporaryFolder folder;
};

TEST_F(LineReaderTest, GivesEachLineItsNumbersAndItsPlace) {
  const std::vector<Line> lines = lines_of("one\n\n \t\ntwo\r\nthree");
  ASSERT_EQ(lines.size(), 3u);
  const char* const texts[] = {"one", "two", "three"};
  const std::int64_t numbers[] = {1, 4, 5};
  const std::uint64_t begins[] = {0, 8, 13};
  const std::uint64_t ends[] = {4, 13, 18};
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(lines[i].text, texts[i]);
    EXPECT_EQ(lines[i].number, numbers[i]);
    EXPECT_EQ(lines[i].index, static_cast<std::int64_t>(i));
    EXPECT_EQ(lines[i].begin, begins[i]);
    EXPECT_EQ(lines[i].end, ends[i]);
    EXPECT_EQ(lines[i].is_ended, i < 2);
  }
}

TEST_F(LineReaderTest, AnEmptyFileHasNoLine) {
  EXPECT_TRUE(lines_of("").empty());
  EXPECT_TRUE(lines_of("\n\n").empty());
}

TEST_F(LineReaderTest, AMarkOfByteOrderIsNoText) {
  const std::vector<Line> lines = lines_of("\xef\xbb\xbf{}\n\xef\xbb\xbf{}\n");
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_EQ(lines[0].text, "{}");
  EXPECT_EQ(lines[0].begin, 3u);
  EXPECT_EQ(lines[1].text, "\xef\xbb\xbf{}") << "only at the start of the file";
}

// Lines around the size of a read (1 MiB), and one of several.
TEST_F(LineReaderTest, LinesLongerThanAReadAreWhole) {
  constexpr std::size_t kRead = std::size_t{1} << 20;
  std::string bytes;
  std::vector<std::string> texts;
  for (const std::size_t size :
       {kRead - 2, kRead - 1, kRead, kRead + 1, 3 * kRead + 7, std::size_t{1}}) {
    texts.emplace_back(size, static_cast<char>('a' + texts.size()));
    bytes += texts.back() + "\n";
  }
  const std::vector<Line> lines = lines_of(bytes);
  ASSERT_EQ(lines.size(), texts.size());
  std::uint64_t at = 0;
  for (std::size_t i = 0; i < texts.size(); ++i) {
    EXPECT_TRUE(lines[i].text == texts[i]) << "line " << i;
    EXPECT_EQ(lines[i].begin, at);
    at += texts[i].size() + 1;
    EXPECT_EQ(lines[i].end, at);
  }
}

TEST_F(LineReaderTest, SaysWhatCannotBeOpened) {
  expect_refused([&] { LineReader(folder.file("absent")); }, Exit::no_input, {"absent"});
  expect_refused([&] { LineReader reader(folder.path()); }, Exit::no_input, {folder.path()});
}

}  // namespace
}  // namespace starattn
