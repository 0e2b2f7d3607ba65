// SPDX-License-Identifier: Apache-2.0
#include "io/answer.h"

#include <gtest/gtest.h>

namespace starattn {
namespace {

TEST(Answer, APublishedLineRepeatsTheRecordButNotInPlaceOfTheAnswer) {
  const Document document = parse_document(
      R"({"index": 4, "input_context": "c", "input_query": "q", "outputs": ["x"], "length": 12,
          "pred": "old", "id": "old", "query_id": "old", "error": "old"})",
      1, "in.jsonl:1");
  Answer answer;
  answer.id = "4";
  answer.query_id = "0";
  answer.text = "new";
  const Json line = parse_json(to_published_line(answer, document), "line");
  EXPECT_EQ(line["pred"], "new");
  EXPECT_EQ(line["id"], "4");
  EXPECT_EQ(line["query_id"], "0");
  EXPECT_EQ(line["index"], 4);
  EXPECT_EQ(line["length"], 12);
  EXPECT_EQ(line["outputs"], Json({"x"}));
  EXPECT_FALSE(line.contains("error"));  // a rerun would take it for a failed one
}

TEST(Answer, TheScoreIsTheShareOfReferencesContained) {
  EXPECT_EQ(share_contained("The Red fox", {"red", "wolf"}), 0.5);
  EXPECT_EQ(share_contained("", {"red"}), 0);
}

}  // namespace
}  // namespace starattn
