// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cstdio>
#include <fstream>
#include <regex>

#include "base/error.h"
#include "benchmark/sample.h"

namespace starattn {
namespace {

using Lines = std::vector<std::string>;

const char* const kSquad = R"({"version": "x", "data": [
 {"title": "A", "paragraphs": [
  {"context": "Ink is made of soot.", "qas": [
   {"id": 1, "question": "What is ink made of?", "answers": [{"text": "soot", "answer_start": 15}, {"text": "soot."}]},
   {"id": 2, "question": "Why?", "answers": [], "is_impossible": true}]},
  {"context": "Pens hold ink.", "qas": []}]},
 {"title": "B", "paragraphs": [
  {"context": "Owls fly at night.", "qas": [{"question": "Who flies?", "answers": [{"text": "Owls"}]}]},
  {"context": "Ink is made of soot.", "qas": []}]}]})";

const char* const kHotpot = R"([
 {"question": "Which is older?", "answer": "Inn", "context": [["Inn", ["Old. ", "Very."]], ["Mill", ["New."]]]},
 {"question": "Is it?", "answer": "yes", "context": [["Zoo", ["Far."]]]}])";

class Reading : public testing::Test {
 protected:
  ReadingData read(const std::string& text, const char* task) const {
    std::ofstream(path_) << text;
    return read_reading_data(path_, task);
  }
  void TearDown() override { std::remove(path_.c_str()); }
  std::string path_ = testing::TempDir() + "starattn_reading.json";
};

TEST_F(Reading, Squad) {
  const ReadingData data = read(kSquad, "qa_1");
  EXPECT_EQ(data.documents,
            (Lines{"Ink is made of soot.", "Pens hold ink.", "Owls fly at night."}));
  ASSERT_EQ(data.questions.size(), 2U);
  EXPECT_EQ(data.questions[0].answers, (Lines{"soot", "soot."}));
  EXPECT_EQ(data.questions[0].own, std::vector<std::int64_t>{0});
  EXPECT_EQ(data.questions[0].near, std::vector<std::int64_t>{1});
  EXPECT_EQ(data.questions[1].own, std::vector<std::int64_t>{2});
  EXPECT_EQ(data.questions[1].near, std::vector<std::int64_t>{0});
}

TEST_F(Reading, Hotpot) {
  const ReadingData data = read(kHotpot, "qa_2");
  EXPECT_EQ(data.documents, (Lines{"Inn\nOld. Very.", "Mill\nNew.", "Zoo\nFar."}));
  EXPECT_EQ(data.questions[0].own, (std::vector<std::int64_t>{0, 1}));
  EXPECT_EQ(data.questions[1].answers, Lines{"yes"});
}

TEST_F(Reading, OwnDocumentsAreAlwaysIn) {
  Materials materials;
  materials.reading = read(kHotpot, "qa_2");
  const SampleMaker maker = reading_maker(materials);
  for (std::int64_t n_units = 0; n_units < 5; ++n_units) {
    for (std::uint64_t key = 0; key < 20; ++key) {
      const Sample sample = maker.make(Random(key), 2, n_units);  // begins again: question 0
      EXPECT_NE(sample.context.find("Inn\nOld. Very."), std::string::npos);
      EXPECT_NE(sample.context.find("Mill\nNew."), std::string::npos);
      const std::string last = "Document " + std::to_string(n_units + 2) + ":\n";
      EXPECT_NE(sample.context.find(last), std::string::npos);
      EXPECT_EQ(sample.answers, Lines{"Inn"});
    }
  }
  const Sample sample = maker.make(Random(1), 1, 0);
  const std::string instruction =
      "Answer the question based on the given documents. Only give me the answer and do not output "
      "any other words.";
  EXPECT_EQ(sample.context, instruction +
                                "\n\nThe following are given documents.\n\nDocument 1:\nZoo\nFar."
                                "\n\n");
  EXPECT_EQ(sample.question, instruction + "\n\nQuestion: Is it?");
  EXPECT_EQ(sample.answer_prefix, " Answer:");
}

TEST_F(Reading, NoDocumentComesAgainBeforeAllAreIn) {
  Materials materials;
  materials.reading = read(kSquad, "qa_1");
  const SampleMaker maker = reading_maker(materials);
  for (std::uint64_t key = 0; key < 20; ++key) {
    const Sample all = maker.make(Random(key), 0, 2);
    for (const std::string& document : materials.reading.documents) {
      const std::size_t first = all.context.find(document);
      ASSERT_NE(first, std::string::npos);
      EXPECT_EQ(all.context.find(document, first + 1), std::string::npos);
    }
    const Sample two = maker.make(Random(key), 0, 1);  // the article's own comes first
    EXPECT_NE(two.context.find("Pens hold ink."), std::string::npos);
  }
}

TEST_F(Reading, RefusesOtherFilesByName) {
  const std::pair<const char*, const char*> cases[] = {{"qa_1", kHotpot},
                                                       {"qa_2", kSquad},
                                                       {"qa_1", R"({"data": []})"},
                                                       {"qa_1", R"({"data": [{"paragraphs": 1}]})"},
                                                       {"qa_2", "[]"},
                                                       {"qa_2", R"([{"question": "q"}])"},
                                                       {"qa_2", "["}};
  for (const auto& [task, text] : cases) {
    try {
      read(text, task);
      ADD_FAILURE() << "accepted " << text;
    } catch (const Error& error) {
      EXPECT_EQ(error.exit(), Exit::bad_data);
      EXPECT_NE(std::string(error.what()).find("starattn_reading.json"), std::string::npos)
          << error.what();
    }
  }
  std::remove(path_.c_str());
  EXPECT_THROW(read_reading_data(path_, "qa_1"), Error);
}

}  // namespace
}  // namespace starattn
