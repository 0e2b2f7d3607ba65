// SPDX-License-Identifier: Apache-2.0
#include "base/json.h"

#include <cmath>
#include <limits>
#include <random>

#include "../temporary_folder.h"

namespace starattn {
namespace {

std::string repeated(const std::string& text, int n) {
  std::string result;
  for (int i = 0; i < n; ++i) result += text;
  return result;
}

void expect_no_json(std::string_view text, std::initializer_list<std::string_view> words) {
  SCOPED_TRACE(std::string(text.substr(0, 80)));
  expect_refused([&] { parse_json(text, "in.json"); }, Exit::bad_data, words);
}

TEST(ParseJson, ReadsWhatNlohmannReads) {
  for (const char* text : {"null", " 1 ", "[]", "{}",
                           R"({"b": [1, -2, 2.5e3, true, null, "\u00e9\n"], "a": {"": {}}})",
                           R"([[[[]]], {"a": [{}]}, 18446744073709551615, -9223372036854775808])"})
    EXPECT_EQ(parse_json(text, "in.json"), Json::parse(text)) << text;
  EXPECT_EQ(parse_json(R"({"z": 1, "a": 2})", "in.json").dump(), R"({"z":1,"a":2})");
}

TEST(ParseJson, RefusesMalformedTextWithItsPlace) {
  for (const char* text :
       {"",       " ",           "{",        "}",         "[1,]", "{\"a\":}", "{\"a\" 1}",
        "{a:1}",  "nul",         "1 2",      "[1] x",     "01",   "+1",       ".5",
        "1.",     "NaN",         "Infinity", "1e999",     "'a'",  "\"a",      "\"\\x\"",
        "\"\n\"", "\"\\ud800\"", "// 1\n1",  "{\"a\":1,}"})
    expect_no_json(text, {"in.json", "not valid JSON at "});
  for (const char* text : {"\"\xff\"", "\"\xc0\xaf\"", "\"\xed\xa0\x80\"", "\"\xf4\x90\x80\x80\"",
                           "\"\xe2\x82\"", "{\"\x80\": 1}"})
    expect_no_json(text, {"in.json", "UTF-8"});
}

TEST(ParseJson, SaysInPlainWordsWhatIsWrong) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({"a": 1, "b" 2})", R"(at column 14: expected ':', got a number, behind '{"a": 1, "b" ')"},
      {R"({"a": 1 "b": 2})",
       R"(at column 9: expected ',' or '}', got text in double quotes, behind '{"a": 1 ')"},
      {R"({"a": 1,})", "expected text in double quotes, got '}'"},
      {R"({"a": nul})", "at column 7: 'nul' is no JSON; text goes in double quotes"},
      {R"({"a": 'x'})", "at column 7: ''' is no JSON; text goes in double quotes"},
      {R"({"a": "cut \ud83d here"})", R"(half a character: \ud800 to \udbff goes with)"},
      {"[1] x", "'x' is no JSON"},
      {"[1] 2", "expected nothing behind the value, got a number"},
      {"{\n \"\xc3\xa9\": 1,\n  \"b\" 2\n}", "at line 3, column 7: expected ':'"}};
  for (const auto& [text, said] : cases) {
    expect_no_json(text, {said});
    try {
      parse_json(text, "in.json");
    } catch (const Error& error) {
      EXPECT_EQ(std::string(error.what()).find("exception"), std::string::npos) << error.what();
      EXPECT_EQ(std::string(error.what()).find("literal"), std::string::npos) << error.what();
    }
  }
}

TEST(ParseJson, ReadsOverAnIgnoredKey) {
  JsonLimits limits;
  limits.max_depth = 3;
  limits.max_values = 4;
  limits.ignored_key = "meta";
  const std::string deep = repeated("[{\"a\":", 500) + "1" + repeated("}]", 500);
  for (const std::string& meta : {deep, std::string("7"), std::string("\"x\""), std::string("{}"),
                                  std::string(R"({"a": 1, "a": [1,2,3,4,5,6]})")}) {
    const Json read = parse_json(R"({"meta": )" + meta + R"(, "b": [{"meta": )" + meta + "}]}",
                                 "in.json", limits);
    EXPECT_EQ(read.dump(), R"({"meta":null,"b":[{"meta":null}]})");
  }
  expect_refused([&] { parse_json(R"({"meta": [1,]})", "in.json", limits); }, Exit::bad_data,
                 {"column 13"});
  limits.ignored_depth = 1;
  EXPECT_EQ(parse_json(R"({"meta": 1, "b": {"meta": 2}})", "in.json", limits).dump(),
            R"({"meta":null,"b":{"meta":2}})");
}

TEST(ParseJson, SkipsAByteOrderMark) {
  EXPECT_EQ(parse_json("\xef\xbb\xbf[1]", "in.json").dump(), "[1]");
}

TEST(ParseJson, RefusesDuplicateKeysAtAnyDepth) {
  expect_no_json(R"({"a": 1, "b": 2, "a": 1})", {"in.json", "'a'", "twice"});
  expect_no_json(R"([{"x": {"b": 1, "\u0062": 2}}])", {"in.json", "'b'", "twice"});
  EXPECT_NO_THROW(parse_json(R"({"a": {"a": 1}, "b": [{"a": 1}, {"a": 2}]})", "in.json"));
}

TEST(ParseJson, StopsAtItsLimits) {
  const JsonLimits limits = {40, 3};
  EXPECT_NO_THROW(parse_json(R"([[[1]], {"a": {"b": 1}}])", "in.json", limits));
  for (const char* text : {"[[[[]]]]", R"({"a": [{"b": {}}]})", "[[[["})
    expect_refused([&] { parse_json(text, "in.json", limits); }, Exit::bad_data,
                   {"in.json", "deeper than 3"});
  EXPECT_NO_THROW(parse_json(std::string(39, ' ') + "1", "in.json", limits));
  expect_refused([&] { parse_json(std::string(40, ' ') + "1", "in.json", limits); }, Exit::bad_data,
                 {"in.json", "41 bytes", "at most 40"});

  for (const char* bomb : {"[", "{\"a\":", "[{\"a\":"})
    expect_no_json(repeated(bomb, 1'000'000), {"deeper"});
}

TEST(ParseJson, CountsValues) {
  const JsonLimits limits{100, 9, 5};
  EXPECT_NO_THROW(parse_json(R"({"a": [1, {}, "x"]})", "in.json", limits));
  for (const char* text : {R"({"a": [1, {}, "x", null]})", R"({"a":1,"b":1,"c":1,"d":1,"e":1})"})
    expect_refused([&] { parse_json(text, "in.json", limits); }, Exit::bad_data,
                   {"in.json", "more than 5 values"});
}

// expect_refused looks at the length of the message.
TEST(ParseJson, QuotesLittleOfWhatItRefuses) {
  const std::string long_text = "\"" + std::string(1'000'000, 'x');
  expect_no_json(long_text, {"in.json"});
  expect_no_json("{" + long_text + "\": 1," + long_text + "\": 1}", {"in.json", "twice"});
}

TEST(ReadJsonFile, NamesTheFile) {
  const TemporaryFolder folder;
  const std::string path = folder.file("a.json");
  expect_refused([&] { read_json_file(path); }, Exit::no_input, {path});
  folder.write("a.json", "{\"a\": [1, 2");
  expect_refused([&] { read_json_file(path); }, Exit::bad_data,
                 {path, "column 12: expected ',' or ']', got the end of the text"});
  folder.write("a.json", "{\"a\": [1, 2]}");
  EXPECT_EQ(read_json_file(path)["a"][1], 2);
  expect_refused([&] { read_json_file(path, {12, 9}); }, Exit::bad_data, {path, "at most 12"});
}

class Members : public ::testing::Test {
 protected:
  Json json_ =
      Json::parse(R"({"s": "x", "i": 5, "f": 1.5, "t": true, "n": null, "o": {"k": "v"}, "l": [],
    "neg": -1, "two_to_63": 9223372036854775808, "whole": 5.0})");
  JsonObject object_{json_, "in.json"};
};

TEST_F(Members, AreReadByType) {
  EXPECT_EQ(object_.get_string("s"), "x");
  EXPECT_EQ(object_.get_int("i", 5, 5), 5);
  EXPECT_EQ(object_.get_int("neg", -1, 0), -1);
  EXPECT_EQ(object_.get_number("f"), 1.5);
  EXPECT_EQ(object_.get_number("i"), 5.0);
  EXPECT_TRUE(object_.get_bool("t"));
  EXPECT_EQ(object_.get_object("o").get_string("k"), "v");
}

TEST_F(Members, MayBeAbsentOrNullWhereTheyAreLookedFor) {
  for (const char* key : {"n", "none"}) {
    EXPECT_FALSE(object_.has(key));
    EXPECT_FALSE(object_.find_string(key) || object_.find_int(key, 0, 1) ||
                 object_.find_number(key) || object_.find_bool(key));
    expect_refused([&] { object_.get(key); }, Exit::bad_data, {"in.json", key, "missing"});
  }
  EXPECT_EQ(object_.find_int("i", 0, 9), 5);
}

TEST_F(Members, OfOtherTypesAreRefusedByName) {
  const auto refused = [](const char* key, auto read) {
    expect_refused(read, Exit::bad_data, {"in.json", fmt::format("'{}'", key), "expected"});
  };
  for (const char* key : {"i", "t", "o", "l"}) refused(key, [&] { object_.find_string(key); });
  for (const char* key : {"s", "f", "t", "o", "l", "neg", "two_to_63", "whole"})
    refused(key, [&] { object_.find_int(key, 0, INT64_MAX); });
  for (const char* key : {"s", "t", "o", "l"}) refused(key, [&] { object_.find_number(key); });
  for (const char* key : {"s", "i", "o", "l"}) refused(key, [&] { object_.find_bool(key); });
  for (const char* key : {"s", "i", "t", "l"}) refused(key, [&] { object_.get_object(key); });
  refused("i", [&] { object_.get_int("i", 6, 9); });
  refused("i", [&] { object_.get_int("i", 0, 4); });
  expect_refused([&] { JsonObject(json_["l"], "in.json"); }, Exit::bad_data, {"in.json", "object"});
  expect_refused([&] { object_.get_object("o").get_int("k", 0, 1); }, Exit::bad_data,
                 {"in.json", "'o'", "'k'"});
}

TEST(ToLine, IsAlwaysJsonOnOneLine) {
  EXPECT_EQ(to_line(Json{{"a", "x\ny"}, {"b", {1, 2}}}), R"({"a":"x\ny","b":[1,2]})");
  EXPECT_EQ(to_line(std::nan("")), "null");
  EXPECT_EQ(to_line("a\xff"), "\"a\xef\xbf\xbd\"");
}

TEST(ParseJson, SurvivesAnyDamage) {
  const std::string whole =
      R"({"a": [1, -2.5e3, "x\u00e9", {"b": null}], "c": {"d": [true, false]}})";
  std::mt19937 random(2);
  int n_read = 0;
  for (int i = 0; i < 30'000; ++i) {
    std::string text = whole.substr(0, random() % 8 ? whole.size() : random() % whole.size());
    for (unsigned n = random() % 3; n > 0 && !text.empty(); --n)
      text[random() % text.size()] =
          static_cast<char>(random() % 2 ? random() : "{}[]\",:0e\\"[random() % 10]);
    try {
      const Json read = parse_json(text, "in.json");
      ASSERT_EQ(read, Json::parse(text)) << text;
      ++n_read;
    } catch (const Error& error) {
      ASSERT_EQ(error.exit(), Exit::bad_data) << text;
    }
  }
  EXPECT_GT(n_read, 1000);
  EXPECT_LT(n_read, 29'000);
}

}  // namespace
}  // namespace starattn
