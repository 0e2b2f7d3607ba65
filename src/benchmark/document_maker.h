// SPDX-License-Identifier: Apache-2.0
// Benchmark samples as lines of input: ours, or the published tool's records.
#pragma once

#include <cstdint>
#include <string>

#include "benchmark/fit.h"
#include "benchmark/sample.h"
#include "tokenizer/tokenizer.h"

namespace starattn {

enum class RecordFormat : std::uint8_t { starattn, published };

// "<task>-<length>-<index>"
std::string document_id(const TaskInfo& task, std::int64_t length, std::int64_t index);

// One task at one length. A line is a function of (seed, task, length, index), the tokenizer and
// what the user brought; the seed of one line says nothing about another's.
class DocumentMaker {
 public:
  // length: tokens of context, question and longest answer together, the tokenizer's prefix
  // included. task, tokenizer and materials outlive this. Throws Error(usage) naming --length
  // where not even the smallest sample fits.
  DocumentMaker(const TaskInfo& task, std::int64_t length, std::uint64_t seed,
                const Tokenizer& tokenizer, const Materials& materials);

  // Throws that without making anything long.
  static void require_length(const TaskInfo& task, std::int64_t length, std::uint64_t seed,
                             const Tokenizer& tokenizer, const Materials& materials);

  const TaskInfo& task() const { return *task_; }
  std::int64_t length() const { return length_; }
  Fitted sample(std::int64_t index) const;  // index >= 0; throws as above
  // JSON without a line end. The record's id is document_id's.
  std::string line(std::int64_t index, RecordFormat format) const;

 private:
  DocumentMaker(const TaskInfo& task, std::int64_t length, std::uint64_t seed,
                const Tokenizer& tokenizer);
  // Takes the first kind of text of which a sample is short enough; the tokens of its smallest.
  std::int64_t choose_maker(const Materials& materials);
  std::int64_t n_tokens(const Sample& sample) const;
  std::string our_line(const Fitted& fitted, std::int64_t index) const;
  std::string published_line(const Fitted& fitted, std::int64_t index) const;

  const TaskInfo* task_;
  std::int64_t length_;
  std::uint64_t seed_;
  const Tokenizer* tokenizer_;
  SampleMaker maker_;
  Random random_;
  FitGuess guess_;
};

}  // namespace starattn
