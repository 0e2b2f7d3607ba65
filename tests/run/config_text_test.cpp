// SPDX-License-Identifier: Apache-2.0
#include "run/config_text.h"

#include <random>

#include "../temporary_folder.h"

namespace starattn {
namespace {

using Values = std::vector<std::string>;

Values values_of(const std::string& text) {
  const std::vector<ConfigEntry> entries = parse_config("key = " + text + "\n", "job.toml");
  EXPECT_EQ(entries.size(), 1U) << text;
  return entries.empty() ? Values() : entries.front().values;
}

TEST(ConfigText, ReadsWhatTheDocsShow) {
  const std::vector<ConfigEntry> entries = parse_config(
      "# a job\n"
      "model = \"/models/Llama-3.1-8B-Instruct\"\n"
      "\n"
      "block-size = 32k  # tokens\r\n"
      "stop = [\"Question:\", \"Answer:\"]\n"
      "overwrite=true",
      "job.toml");
  ASSERT_EQ(entries.size(), 4U);
  EXPECT_EQ(entries[0].values, Values{"/models/Llama-3.1-8B-Instruct"});
  EXPECT_EQ(entries[1].key, "block-size");
  EXPECT_EQ(entries[1].values, Values{"32k"});
  EXPECT_EQ(entries[1].line, 4);
  EXPECT_EQ(entries[2].values, (Values{"Question:", "Answer:"}));
  EXPECT_EQ(entries[3].values, Values{"true"});
}

TEST(ConfigText, ReadsValues) {
  const std::pair<const char*, Values> cases[] = {
      {"\"a\\nb\"", {"a\nb"}},
      {"'a\\nb'", {"a\\nb"}},
      {"\"a # b\" # c", {"a # b"}},
      {"'a # b'", {"a # b"}},
      {"\"say \\\"no\\\" \\\\ \\t\"", {"say \"no\" \\ \t"}},
      {"\"\\u00e9\\U0001F600\"", {"\xc3\xa9\xf0\x9f\x98\x80"}},
      {"\"\"", {""}},
      {"[]", {}},
      {"[ a, \"b, c\" , 'd' ]", {"a", "b, c", "d"}},
      {"[\n  \"a\", # first\n  \"]\",\n]", {"a", "]"}},
      {"\"[INST]\"", {"[INST]"}},
      {"010", {"010"}},
      {"star:b=n/4", {"star:b=n/4"}}};
  for (const auto& [text, values] : cases) EXPECT_EQ(values_of(text), values) << text;
}

TEST(ConfigText, RefusesWhatIsNoLineOfItsWithItsNumber) {
  const std::pair<const char*, const char*> cases[] = {
      {"overwrite", "expected key = value"},
      {"block-size: 4096", "expected key = value"},
      {"= 4", "expected key = value"},
      {"block size = 4", "expected key = value"},
      {"\"block-size\" = 4", "expected key = value"},
      {"{\"block-size\": 4}", "expected key = value"},
      {"[run]", "sections"},
      {"input =", "expected a value"},
      {"input = # none", "expected a value"},
      {"input = \"a", "not closed"},
      {"input = 'a", "not closed"},
      {"input = \"a\\", "not closed"},
      {"input = \"a\" b", "expected the end of the line"},
      {"input = a b", "expected the end of the line"},
      {"input = a\"b\"", "goes in quotes"},
      {"input = \"a\\x\"", "\\x has no meaning"},
      {"input = \"\\ud800\"", "hexadecimal digits of a character"},
      {"input = \"\\u00\"", "hexadecimal digits of a character"},
      {"stop = [\"a\" \"b\"]", "expected ',' or ']'"},
      {"stop = [\"a\",", "is not closed with ]"},
      {"stop = [,]", "expected a value"},
      {"stop = [[\"a\"]]", "goes in quotes"}};
  for (const auto& [text, said] : cases) {
    SCOPED_TRACE(text);
    expect_refused([&] { parse_config(std::string("# first\nreach = 1\n") + text, "job.toml"); },
                   Exit::usage, {"job.toml:3: ", said});
  }
  expect_refused([] { parse_config(std::string("a = \"\0\"", 7), "job.toml"); }, Exit::usage,
                 {"job.toml", "control character"});
}

TEST(ConfigText, SurvivesAnyDamage) {
  const std::string whole = "a = \"x\\n\\u00e9\" # y\nb = [1, 'two',\n \"three\"]\nc = 4k\n";
  std::mt19937 random(3);
  int n_read = 0;
  for (int i = 0; i < 20'000; ++i) {
    std::string text = whole.substr(0, random() % 8 ? whole.size() : random() % whole.size());
    for (unsigned n = random() % 3; n > 0 && !text.empty(); --n)
      text[random() % text.size()] = static_cast<char>("\"'[],#=\\\n u"[random() % 11]);
    try {
      parse_config(text, "job.toml");
      ++n_read;
    } catch (const Error& error) {
      ASSERT_EQ(error.exit(), Exit::usage) << text;
    }
  }
  EXPECT_GT(n_read, 1000);
}

}  // namespace
}  // namespace starattn
