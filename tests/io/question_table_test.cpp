// SPDX-License-Identifier: Apache-2.0
#include "io/question_table.h"

#include <gtest/gtest.h>

#include "../temporary_folder.h"
#include "base/error.h"
#include "io/document.h"
#include "io/line_reader.h"

namespace starattn {
namespace {

std::vector<Document> parsed(std::string_view text) {
  std::vector<Document> documents;
  for (const TableDocument& document : documents_of_table(text, "q.csv"))
    documents.push_back(parse_document(document.text, document.line, "q.csv"));
  return documents;
}

TEST(QuestionTableTest, AFileIsADocumentWithAllItsQuestions) {
  const std::vector<Document> documents =
      parsed("id,file,question,answer\na1,a.txt,Who?,Ada\n,b.txt,When?,\na2,a.txt,Where?,here\n");
  ASSERT_EQ(documents.size(), 2u);
  EXPECT_EQ(documents[0].id, "a.txt");
  EXPECT_EQ(documents[0].context_file, "a.txt");
  EXPECT_EQ(documents[0].line, 2);
  ASSERT_EQ(documents[0].queries.size(), 2u);
  EXPECT_EQ(documents[0].queries[0].id, "a1");
  EXPECT_EQ(documents[0].queries[0].answers, std::vector<std::string>{"Ada"});
  EXPECT_EQ(documents[0].queries[1].text, "Where?");
  EXPECT_EQ(documents[1].line, 3);
  EXPECT_EQ(documents[1].queries[0].id, "0");
  EXPECT_TRUE(documents[1].queries[0].answers.empty());
}

TEST(QuestionTableTest, FieldsMayBeQuoted) {
  const std::vector<Document> documents = parsed(
      "file,question\r\n\"a, b.txt\",\"Who said \"\"no\"\"?\nAnd why?\"\r\n\r\nc.txt,\"\"\"\"");
  ASSERT_EQ(documents.size(), 2u);
  EXPECT_EQ(documents[0].context_file, "a, b.txt");
  EXPECT_EQ(documents[0].queries[0].text, "Who said \"no\"?\nAnd why?");
  EXPECT_EQ(documents[1].line, 5);
  EXPECT_EQ(documents[1].queries[0].text, "\"");
}

TEST(QuestionTableTest, ColumnsMayBeSeparatedBySemicolonsOrTabsAndOthersAreIgnored) {
  EXPECT_EQ(parsed("file;question\na.txt;Who, and why?\n")[0].queries[0].text, "Who, and why?");
  EXPECT_EQ(parsed("x\tfile\tquestion\n1\ta.txt\tWho?\n")[0].queries[0].text, "Who?");
}

TEST(QuestionTableTest, WhatIsWrongIsNamedWithItsRow) {
  const auto message = [](std::string_view text) -> std::string {
    try {
      documents_of_table(text, "q.csv");
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  };
  EXPECT_EQ(message("file,text\na,b\n"),
            "q.csv:1: expected a row that names the columns, with 'file' and 'question' once each, "
            "got 'file', 'text'");
  EXPECT_NE(message("").find("q.csv:1:"), std::string::npos);
  EXPECT_NE(message("file,file,question\n").find("once each"), std::string::npos);
  EXPECT_EQ(message("file,question\na.txt,Who?\nb.txt,x,y\n"),
            "q.csv:3: expected 2 fields, as the first row has, got 3");
  EXPECT_EQ(message("file,question\n,Who?\n"), "q.csv:2: the row names no file");
  EXPECT_EQ(message("file,question\na,Who?\nb,\n"), "q.csv:3: the row asks nothing");
  const std::string same = message("file,question,id\na,x,7\nb,y,7\na,z,7\n");
  EXPECT_NE(same.find("q.csv:4: two questions about 'a' have the id '7', this one and that of "
                      "line 2"),
            std::string::npos)
      << same;
  EXPECT_NE(message("file,question,id\na,x,1\na,y,\n").find("q.csv:3:"), std::string::npos);
  EXPECT_EQ(message("file,question\na,\"b\nc\nd\n"),
            "q.csv:2: a quote (\") is opened and never closed");
  EXPECT_NE(message("file,question\na,\"b\"c\n").find("q.csv:2: text behind"), std::string::npos);
}

TEST(QuestionTableTest, RowsWithoutAnythingAreSkipped) {
  const std::vector<Document> documents =
      parsed("\n,,\nfile,question,answer\n,,\n\na.txt,Who?,\n,,\n");
  ASSERT_EQ(documents.size(), 1u);
  EXPECT_EQ(documents[0].line, 6);
}

TEST(QuestionTableTest, JsonLinesAreNoTableWhateverTheirName) {
  const TemporaryFolder folder;
  folder.write("answers.csv", "\xef\xbb\xbf \n{\"id\": \"a\"}\n");
  LineReader lines(folder.file("answers.csv"));
  const std::optional<Line> line = lines.next();
  ASSERT_TRUE(line);
  EXPECT_EQ(line->text, "{\"id\": \"a\"}");
}

TEST(QuestionTableTest, ALineReaderGivesItsDocuments) {
  const TemporaryFolder folder;
  folder.write("Q.CSV",
               "\xef\xbb\xbf"
               "file,question\na.txt,Who?\nb.txt,When?\na.txt,Why?\n");
  LineReader lines(folder.file("Q.CSV"));
  const std::optional<Line> first = lines.next();
  const std::optional<Line> second = lines.next();
  ASSERT_TRUE(first && second);
  EXPECT_EQ(first->number, 2);
  EXPECT_EQ(second->number, 3);
  EXPECT_EQ(second->index, 1);
  EXPECT_EQ(parse_document(first->text, 2, "q").queries.size(), 2u);
  EXPECT_FALSE(lines.next());
}

}  // namespace
}  // namespace starattn
