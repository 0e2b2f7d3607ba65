// SPDX-License-Identifier: Apache-2.0
#include "io/document.h"

#include <gtest/gtest.h>

#include <random>

#include "base/error.h"
#include "io/answer.h"

namespace starattn {
namespace {

Document parse(const std::string& text) {
  return parse_document(text, 3, "in.jsonl:3");
}

TEST(Document, ReadsOurRecords) {
  const Document d = parse(
      R"({"id": 7, "context": "c", "queries": ["q", {"id": "x", "text": "t", "answers": ["a", 5],
                               "max_new_tokens": 4, "stop": "\n", "meta": {"any": 1}}, {"tokens": [1, 2]}]})");
  EXPECT_EQ(d.id, "7");
  ASSERT_EQ(d.queries.size(), 3U);
  EXPECT_EQ(d.queries[0].id, "0");
  EXPECT_EQ(d.queries[1].answers, (std::vector<std::string>{"a", "5"}));
  EXPECT_EQ(d.queries[1].stop.value(), (std::vector<std::string>{"\n"}));
  EXPECT_FALSE(d.queries[0].stop);  // --stop applies
  EXPECT_EQ(*d.queries[2].tokens, (std::vector<std::int32_t>{1, 2}));
  EXPECT_EQ(parse(R"({"context_tokens": [0], "queries": ["q"]})").id, "3");
  const Document none = parse(R"({"context": "c", "queries": [{"text": "t", "stop": []}]})");
  EXPECT_TRUE(none.queries[0].stop && none.queries[0].stop->empty());  // --stop does not
}

TEST(Document, ReadsThePublishedToolsRecords) {
  const Document d = parse(
      R"({"index": 4, "input_context": "c", "input_query": "q", "outputs": ["a"], "length": 9})");
  EXPECT_TRUE(d.is_published());
  EXPECT_EQ(d.id, "4");
  EXPECT_EQ(d.queries[0].answers, std::vector<std::string>{"a"});
  Answer answer;
  answer.id = "4";
  answer.query_id = "0";
  answer.text = "A!";
  const Json line = Json::parse(to_published_line(answer, d));
  EXPECT_EQ(line["index"], 4);
  EXPECT_EQ(line["pred"], "A!");
  EXPECT_EQ(line["outputs"][0], "a");
}

TEST(Document, RefusesWhatIsWrongByName) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({"queries": ["q"]})", "context"},
      {R"({"context": "c", "context_tokens": [1], "queries": ["q"]})", "exactly one"},
      {R"({"context": "", "queries": ["q"]})", "empty"},
      {R"({"context": "c"})", "queries"},
      {R"({"context": "c", "queries": []})", "queries"},
      {R"({"context": "c", "queries": [""]})", "query 0"},
      {R"({"context": "c", "querys": ["q"], "queries": ["q"]})", "querys"},
      {R"({"context": "c", "queries": [{"id": "a", "text": "t"}, {"id": "a", "text": "t"}]})",
       "twice"},
      {R"({"context_tokens": [1, -1], "queries": ["q"]})", "entry 1"},
      {R"({"context_tokens": [1.5], "queries": ["q"]})", "entry 0"},
      {R"({"context": "c", "context": "d", "queries": ["q"]})", "twice"},
      {R"({"context": "c", "queries": [{"text": "t", "max_new_tokens": 0}]})", "max_new_tokens"},
      {R"([])", "object"},
      {R"({"context": "c", "querys": ["q"]})", "the keys are id, context, context_file"},
      {R"({"index": 3, "input": "x y", "outputs": ["345"], "length": 30})", "a record of RULER"},
      {R"({"messages": [{"role": "user", "content": "x"}]})", "a chat of several turns"},
      {R"({"id": 123456789012345678901234567890, "context": "c", "queries": ["q"]})",
       "key 'id': expected text or an integer of at most 19 digits"},
      {R"({"context": "c", "queries": [{"text": "t", "txt": 1}]})",
       "query 0: unknown key 'txt'; the keys are id, text"},
      {"{", "jq -c . FILE"},
      {"[", "jq -c . FILE"},
      {"id,context,query", "a line that begins with 'id,context,query'"},
      {R"({"context": "c")", "JSON"},
      {"{\"context\": \"\xff\", \"queries\": [\"q\"]}", "UTF-8"}};
  for (const auto& [text, said] : cases) {
    try {
      parse(text);
      ADD_FAILURE() << "accepted " << text;
    } catch (const Error& error) {
      EXPECT_EQ(error.exit(), Exit::bad_data);
      EXPECT_NE(std::string(error.what()).find(said), std::string::npos) << error.what();
      EXPECT_EQ(std::string(error.what()).rfind("in.jsonl:3", 0), 0U) << error.what();
    }
  }
}

TEST(Document, TakesAnythingAsMeta) {
  std::string deep;
  for (int i = 0; i < 100'000; ++i) deep += i % 2 ? "[" : R"({"a":)";
  deep += "1";
  for (int i = 100'000; i-- > 0;) deep += i % 2 ? "]" : "}";
  const Document d = parse(R"({"context": "c", "meta": )" + deep +
                           R"(, "queries": [{"text": "t", "meta": )" + deep + "}]}");
  EXPECT_EQ(d.queries[0].text, "t");
}

TEST(Document, KeepsMetaWithinASchema) {
  const std::string schema = R"({"type":"object","properties":{"meta":{"const":{"meta":[1]}}}})";
  const Document d =
      parse(R"({"context": "c", "queries": [{"text": "t", "schema": )" + schema + "}]}");
  ASSERT_TRUE(d.queries[0].form);
  EXPECT_EQ(d.queries[0].form->texts, std::vector<std::string>{schema});
}

TEST(Document, SurvivesAnyMutation) {
  const std::string good =
      R"({"id":"a","context":"some text","queries":["q",{"id":"b","text":"t","answers":["x"]}]})";
  std::mt19937 generator(5);
  for (int i = 0; i < 20000; ++i) {
    std::string text = good;
    for (int edits = 0; edits < 3; ++edits)
      text[generator() % text.size()] = static_cast<char>(generator() % 256);
    try {
      parse(text);
    } catch (const Error& error) {
      ASSERT_EQ(error.exit(), Exit::bad_data);
    }
    readable_id(text, 1);
  }
}

TEST(Score, IsTheShareOfReferencesContained) {
  EXPECT_EQ(share_contained("The Blue and RED one", {"blue", "Red"}), 1.0);
  EXPECT_EQ(share_contained("blue", {"blue", "red"}), 0.5);
  EXPECT_EQ(share_contained("", {"a"}), 0.0);
}

}  // namespace
}  // namespace starattn
