// SPDX-License-Identifier: Apache-2.0
#include "benchmark/document_maker.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <set>

#include "base/error.h"
#include "base/file.h"
#include "io/document.h"
#include "io/line_reader.h"
#include "word_tokenizer.h"

namespace starattn {
namespace {

const std::string kGoldens = STARATTN_SOURCE_DIR "/tests/golden/benchmark/lines.jsonl";

// One line a task, the shortest text that the task has here.
std::vector<std::string> golden_lines() {
  const WordTokenizer tokenizer;
  const Materials materials;
  std::vector<std::string> lines;
  for (const TaskInfo& task : all_tasks()) {
    if (task.needs_data()) continue;
    const DocumentMaker maker(task, 900, 42, tokenizer, materials);
    lines.push_back(maker.line(1, RecordFormat::starattn));
  }
  return lines;
}

// After a change that is meant: STARATTN_WRITE_GOLDENS=1 study_test, and say so in CHANGELOG.md.
TEST(DocumentMaker, WritesTheSameBytesForEver) {
  const auto lines = golden_lines();
  if (std::getenv("STARATTN_WRITE_GOLDENS")) {
    std::ofstream file(kGoldens);
    for (const std::string& line : lines) file << line << "\n";
  }
  LineReader reader(kGoldens);
  for (const std::string& line : lines) {
    const auto golden = reader.next();
    ASSERT_TRUE(golden);
    EXPECT_EQ(line, golden->text);
  }
  EXPECT_FALSE(reader.next());
}

TEST(DocumentMaker, LinesAreDocumentsOfOurs) {
  for (const std::string& line : golden_lines()) {
    const Document document = parse_document(line, 1, "line");
    ASSERT_EQ(document.queries.size(), 1U);
    const Query& query = document.queries[0];
    EXPECT_FALSE(query.answers.empty());
    EXPECT_GT(query.max_new_tokens, 0);
    for (const std::string& answer : query.answers)
      EXPECT_NE(document.context.find(answer), std::string::npos) << document.id << ": " << answer;
    const Json meta = parse_json(line, "line")["meta"];
    EXPECT_EQ(document.id, meta["task"].get<std::string>() + "-900-1");
    EXPECT_FALSE(meta["text"].get<std::string>().empty());
  }
}

// With tokenizers of every kind: full, never over, and what is said is what the parts measure.
TEST(DocumentMaker, NeverGoesOverTheLength) {
  const std::string goldens = STARATTN_SOURCE_DIR "/tests/golden/tokenizer/";
  const Materials materials;
  for (const std::string& folder :
       {goldens + "../../../data/demo-model", goldens + "sentencepiece", goldens + "llama3"}) {
    const auto tokenizer = Tokenizer::open(folder);
    for (const TaskInfo& task : all_tasks()) {
      if (task.needs_data()) continue;
      for (const std::int64_t length : {3000, 6000}) {
        const DocumentMaker maker(task, length, 7, *tokenizer, materials);
        for (std::int64_t i = 0; i < 5; ++i) {
          const Fitted fitted = maker.sample(i);
          const Sample& sample = fitted.sample;
          const std::size_t n_tokens =
              tokenizer->prefix().size() +
              tokenizer->encode(sample.context, SpecialTokens::text).size() +
              tokenizer->encode(sample.question + sample.answer_prefix, SpecialTokens::text).size();
          EXPECT_EQ(fitted.n_tokens, static_cast<std::int64_t>(n_tokens) + task.max_new_tokens);
          EXPECT_LE(fitted.n_tokens, length) << task.name;
          EXPECT_GE(fitted.n_tokens, length - length / 16) << task.name << " on " << folder;
        }
      }
    }
  }
}

TEST(DocumentMaker, IndexAndSeedDecideAndOrderDoesNot) {
  const WordTokenizer tokenizer;
  const Materials materials;
  const TaskInfo& task = *find_task("niah_multikey_1");
  const DocumentMaker maker(task, 500, 1, tokenizer, materials);
  const DocumentMaker again(task, 500, 1, tokenizer, materials);
  const DocumentMaker other(task, 500, 2, tokenizer, materials);
  std::set<std::string> contexts;
  for (std::int64_t i = 9; i >= 0; --i) {
    const std::string line = maker.line(i, RecordFormat::starattn);
    EXPECT_EQ(line, again.line(i, RecordFormat::starattn));
    contexts.insert(maker.sample(i).sample.context);
    contexts.insert(other.sample(i).sample.context);
  }
  EXPECT_EQ(contexts.size(), 20U);
}

TEST(DocumentMaker, WritesThePublishedToolsRecords) {
  const WordTokenizer tokenizer;
  const Materials materials;
  const DocumentMaker maker(*find_task("vt"), 700, 1, tokenizer, materials);
  const Document document = parse_document(maker.line(3, RecordFormat::published), 1, "line");
  EXPECT_TRUE(document.is_published());
  EXPECT_EQ(document.id, "3");
  const Sample sample = maker.sample(3).sample;
  EXPECT_EQ(document.context, sample.context);
  EXPECT_EQ(document.queries[0].text, sample.question + sample.answer_prefix);
  EXPECT_EQ(document.queries[0].answers, sample.answers);
}

// As long as texts get: 30 repeats of ten words take more than 4,096 of these.
class LetterTokenizer : public WordTokenizer {
 public:
  std::vector<Token> encode(std::string_view text, SpecialTokens) const override {
    return std::vector<Token>(text.begin(), text.end());
  }
};

TEST(DocumentMaker, CommonWordsRepeatLessWhereMoreDoesNotFit) {
  const Materials materials;
  const auto is_short = [&](std::int64_t length, const Tokenizer& tokenizer) {
    const DocumentMaker maker(*find_task("cwe"), length, 1, tokenizer, materials);
    EXPECT_LE(maker.sample(0).n_tokens, length);
    const std::string line = maker.line(0, RecordFormat::starattn);
    return line.find("common ones 6 times") != std::string::npos;
  };
  EXPECT_TRUE(is_short(4095, WordTokenizer()));
  EXPECT_FALSE(is_short(4096, WordTokenizer()));
  EXPECT_TRUE(is_short(4096, LetterTokenizer()));
  EXPECT_FALSE(is_short(8192, LetterTokenizer()));
}

TEST(DocumentMaker, RefusesLengthsThatHoldNothing) {
  const WordTokenizer tokenizer;
  const Materials materials;
  for (const TaskInfo& task : all_tasks()) {
    if (task.needs_data()) continue;
    try {
      const DocumentMaker maker(task, 60, 1, tokenizer, materials);
      ADD_FAILURE() << "accepted " << task.name;
    } catch (const Error& error) {
      EXPECT_EQ(error.exit(), Exit::usage);
      EXPECT_EQ(std::string(error.what()).rfind(std::string(task.name) + ": --length", 0), 0U)
          << error.what();
    }
  }
}

}  // namespace
}  // namespace starattn
