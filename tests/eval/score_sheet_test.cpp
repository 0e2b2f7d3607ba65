// SPDX-License-Identifier: Apache-2.0
#include "eval/score_sheet.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace starattn {
namespace {

std::string document(const std::string& id, const std::string& meta,
                     const std::string& queries =
                         R"([{"id": "0", "text": "q kitchen Answer: garden", "answers": ["office"],
                              "meta": {"question": "q kitchen"}}])") {
  return R"({"id": ")" + id + R"(", "context": "c", "queries": )" + queries + R"(, "meta": )" +
         meta + "}";
}

std::string answer(const std::string& id, const std::string& text, const char* key = "answer") {
  return R"({"id": ")" + id + R"(", "query_id": "0", ")" + key + R"(": ")" + text + R"("})";
}

const char* const kPlaces1k = R"({"task": "qa1", "length": 1024})";

TEST(ScoreSheet, AddsUpByTaskAndLength) {
  ScoreSheet sheet;
  sheet.add_document(document("a", kPlaces1k), 1, "in:1");
  sheet.add_document(document("b", R"({"task": "qa1", "length": 2048})"), 2, "in:2");
  sheet.add_document(document("c", kPlaces1k), 3, "in:3");
  sheet.add_document(document("d", kPlaces1k), 4, "in:4");
  sheet.add_document(document("e", R"({"task": "vt", "length": 9})",
                              R"([{"id": "0", "text": "q", "answers": ["A", "B", "X", "Y"]}])"),
                     5, "in:5");
  sheet.add_answer(answer("c", "kitchen office."), "out:1");  // the question names the kitchen
  sheet.add_answer(answer("a", "garden office", "pred"), "out:2");  // the garden it does not
  sheet.add_answer(answer("e", "a b c"), "out:3");
  sheet.add_answer(R"({"line": 4, "id": "d", "error": "x"})", "out:4");
  const auto rows = sheet.rows();
  ASSERT_EQ(rows.size(), 3U);
  EXPECT_EQ(rows[0].n_scored, 2);
  EXPECT_EQ(rows[0].n_missing, 1);
  EXPECT_EQ(rows[0].mean(), 0.5);
  EXPECT_EQ(rows[1].length, 2048);
  EXPECT_EQ(rows[1].n_scored, 0);
  EXPECT_EQ(rows[1].n_missing, 1);
  EXPECT_EQ(rows[2].mean(), 0.5);
  const Json json = to_json(rows);
  EXPECT_EQ(json[0]["score"], 0.5);
  EXPECT_TRUE(json[1]["score"].is_null());
  EXPECT_EQ(json[1]["low"], 0.0);
  EXPECT_EQ(json[1]["high"], 1.0);
  EXPECT_EQ(to_table(rows),
            "task                 length  answers  missing  score %  95 % interval\n"
            "qa1                   1,024        2        1     50.0  9.5 .. 90.5\n"
            "qa1                   2,048        0        1        -  0.0 .. 100.0\n"
            "vt                        9        1        0     50.0  5.5 .. 94.5\n");
}

void expect_refused(const std::function<void()>& action, const std::string& said) {
  try {
    action();
    ADD_FAILURE() << "accepted; expected: " << said;
  } catch (const Error& error) {
    EXPECT_EQ(error.exit(), Exit::bad_data);
    EXPECT_NE(std::string(error.what()).find(said), std::string::npos) << error.what();
    EXPECT_EQ(std::string(error.what()).rfind("at:7", 0), 0U) << error.what();
  }
}

// Whatever stands under `meta`: what is not of a task of ours is scored as run scores it.
TEST(ScoreSheet, TakesTheUsersOwnDocuments) {
  ScoreSheet sheet;
  const std::string references =
      R"([{"id": "0", "text": "Who?", "answers": ["Ada", "Lovelace"]}, {"id": "1", "text": "?"}])";
  int n = 0;
  for (const char* meta : {R"({"task": "nope", "length": 1024})", R"({"task": 1, "length": 2})",
                           R"("vt")", R"({"task": "vt"})", "[[[[1]]]]", "null"}) {
    const std::string id(1, static_cast<char>('a' + n++));
    sheet.add_document(document(id, meta, references), n, "in");
    sheet.add_answer(answer(id, id == "a" ? "ada" : "Ada LOVELACE"), "out");
    sheet.add_answer(R"({"id": ")" + id + R"(", "query_id": "1", "answer": "x"})", "out");
  }
  const auto rows = sheet.rows();
  ASSERT_EQ(rows.size(), 1U);
  EXPECT_EQ(rows[0].n_scored, 6);
  EXPECT_EQ(rows[0].n_missing, 0);
  EXPECT_NEAR(rows[0].mean(), 5.5 / 6, 1e-12);
  EXPECT_EQ(sheet.n_without_references(), 6);
  EXPECT_TRUE(to_json(rows)[0]["task"].is_null());
  EXPECT_NE(to_table(rows).find("\nyour documents                     6"), std::string::npos)
      << to_table(rows);
}

TEST(ScoreSheet, RefusesWhatDoesNotBelong) {
  ScoreSheet sheet;
  sheet.add_document(document("a", kPlaces1k), 1, "in:1");
  sheet.add_answer(answer("a", "x"), "out:1");
  const std::pair<std::string, const char*> documents[] = {
      {document("a", kPlaces1k), "twice"},
      {document("b", R"({"task": "vt", "length": 0})"), "length"},
      {R"({"id": "b", "queries": ["q"]})", "context"}};
  for (const auto& [line, said] : documents)
    expect_refused([&, text = line] { sheet.add_document(text, 7, "at:7"); }, said);
  const std::pair<std::string, const char*> answers[] = {
      {answer("a", "x"), "second answer"},
      {answer("b", "x"), "no document 'b'"},
      {R"({"id": "a", "answer": "x"})", "query_id"},
      {R"({"id": "a", "query_id": "0"})", "query '0'"},
      {"{", "JSON"}};
  for (const auto& [line, said] : answers)
    expect_refused([&, text = line] { sheet.add_answer(text, "at:7"); }, said);
}

}  // namespace
}  // namespace starattn
