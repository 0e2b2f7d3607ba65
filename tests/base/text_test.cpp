// SPDX-License-Identifier: Apache-2.0
#include "base/text.h"

#include "../temporary_folder.h"

namespace starattn {
namespace {

TEST(ParseTokens, ReadsUnits) {
  const std::pair<const char*, std::int64_t> cases[] = {{"0", 0},
                                                        {"4096", 4096},
                                                        {"007", 7},
                                                        {"32k", 32768},
                                                        {"32K", 32768},
                                                        {"1m", 1048576},
                                                        {"10M", 10485760},
                                                        {"1048576m", std::int64_t{1} << 40},
                                                        {"1099511627776", std::int64_t{1} << 40}};
  for (const auto& [text, expected] : cases)
    EXPECT_EQ(parse_tokens(text, "--block-size"), expected) << text;
}

TEST(ParseTokens, RefusesTheRestByName) {
  for (const char* text : {"",
                           " ",
                           "k",
                           "m",
                           "kk",
                           "4kk",
                           "4km",
                           "4g",
                           "k4",
                           "4 k",
                           " 4",
                           "4 ",
                           "+4",
                           "-4",
                           "-1k",
                           "-0",
                           "1.5",
                           "1.5k",
                           "1e3",
                           "0x10",
                           "4,096",
                           "four",
                           "٤",
                           "1099511627777",
                           "1048577m",
                           "1073741825k",
                           "9223372036854775807",
                           "9223372036854775808",
                           "18446744073709551617",
                           "9223372036854775807m",
                           "99999999999999999999999999999999"}) {
    expect_refused([&] { parse_tokens(text, "--block-size"); }, Exit::usage,
                   {"--block-size", fmt::format("'{}'", text), "32k"});
  }
  expect_refused([] { parse_tokens(std::string_view("4\0", 2), "--x"); }, Exit::usage, {"--x"});
}

TEST(ParseBlocks, TakesPlainNumbers) {
  EXPECT_EQ(parse_blocks("0", "--reach"), 0);
  EXPECT_EQ(parse_blocks("12", "--reach"), 12);
  for (const char* text : {"", "-1", "+1", "1k", " 1", "1 ", "some", "99999999999999999999"}) {
    expect_refused([&] { parse_blocks(text, "--reach"); }, Exit::usage,
                   {"--reach: expected a number of blocks", fmt::format("'{}'", text)});
  }
}

TEST(WithCommas, GroupsByThree) {
  EXPECT_EQ(with_commas(0), "0");
  EXPECT_EQ(with_commas(999), "999");
  EXPECT_EQ(with_commas(1000), "1,000");
  EXPECT_EQ(with_commas(131072), "131,072");
  EXPECT_EQ(with_commas(-1234567), "-1,234,567");
  EXPECT_EQ(with_commas(-100), "-100");
  EXPECT_EQ(with_commas(INT64_MAX), "9,223,372,036,854,775,807");
  EXPECT_EQ(with_commas(INT64_MIN), "-9,223,372,036,854,775,808");
}

TEST(HumanBytes, PicksTheUnit) {
  EXPECT_EQ(human_bytes(0), "0 B");
  EXPECT_EQ(human_bytes(1023), "1023 B");
  EXPECT_EQ(human_bytes(1024), "1.00 KiB");
  EXPECT_EQ(human_bytes(1610612736), "1.50 GiB");
  EXPECT_EQ(human_bytes((1U << 20) - 1), "1.00 MiB");  // not 1024.00 KiB
  EXPECT_EQ(human_bytes(std::uint64_t{5} << 40), "5.00 TiB");
  EXPECT_EQ(human_bytes(UINT64_MAX), "16384.00 PiB");
}

TEST(HumanSeconds, PicksTheUnit) {
  const std::pair<double, const char*> cases[] = {{0, "0 ms"},
                                                  {0.85, "850 ms"},
                                                  {0.9994, "999 ms"},
                                                  {0.9996, "1.0 s"},
                                                  {12.34, "12.3 s"},
                                                  {99.94, "99.9 s"},
                                                  {99.96, "1 min 40 s"},
                                                  {245, "4 min 05 s"},
                                                  {3599.4, "59 min 59 s"},
                                                  {3599.6, "1 h 00 min"},
                                                  {90000, "25 h 00 min"}};
  for (const auto& [seconds, expected] : cases) EXPECT_EQ(human_seconds(seconds), expected);
  EXPECT_NE(human_seconds(1e300), "");  // a plan may ask for more than 2^63 seconds
}

TEST(Printable, EscapesWhatSteersATerminal) {
  EXPECT_EQ(printable("a\x1b[2Jb\r\x7f\x07"), "a\\x1b[2Jb\\x0d\\x7f\\x07");
  EXPECT_EQ(printable(std::string_view("\0", 1)), "\\x00");
  EXPECT_EQ(printable("\xc2\x9b"
                      "31m \xc2\xa0 é€😀 \xc2"),
            "\\x9b31m \xc2\xa0 é€😀 \xc2");
  EXPECT_EQ(printable("two\n\tlines"), "two\n\tlines");
  EXPECT_EQ(one_line("two\r\n\tlines\x1b"), "two   lines\\x1b");
}

// By the definition: 0xxxxxxx, 110xxxxx 10xxxxxx, ...
std::string utf8_of(unsigned c, int length) {
  if (length == 1) return {static_cast<char>(c)};
  std::string text;
  for (int shift = 6 * (length - 1); shift >= 0; shift -= 6)
    text += static_cast<char>(0x80 | (c >> shift & 0x3f));
  const int marks[] = {0, 0, 0xc0, 0xe0, 0xf0};
  text[0] = static_cast<char>(marks[length] | c >> 6 * (length - 1));
  return text;
}

TEST(Utf8, IsKnownForEveryCodePoint) {
  const unsigned first[] = {0, 0, 0x80, 0x800, 0x10000};
  for (unsigned c = 0; c < 0x1fffff; c += c < 0x11000 ? 1 : 61) {
    for (int length = 1; length <= 4; ++length) {
      if (c >= (length == 1 ? 0x80U : 1U << (5 * length + 1))) continue;  // does not fit
      const bool is_shortest = c >= first[length];
      const bool is_character = c < 0x110000 && (c < 0xd800 || c > 0xdfff);
      ASSERT_EQ(is_utf8(utf8_of(c, length)), is_shortest && is_character) << c << " " << length;
    }
  }
}

TEST(Utf8, SaysWhereItEnds) {
  const std::pair<const char*, std::size_t> cases[] = {{"\x80", 0},          {"ab\xff", 2},
                                                       {"a\xc3", 1},         {"é\xe2\x82", 2},
                                                       {"€\xf0\x9f\x98", 3}, {"\xc3(", 0}};
  for (const auto& [text, expected] : cases) {
    std::size_t offset = 99;
    EXPECT_FALSE(is_utf8(text, &offset));
    EXPECT_EQ(offset, expected);
  }
  EXPECT_TRUE(is_utf8("") && is_utf8("aé€😀"));
}

}  // namespace
}  // namespace starattn
