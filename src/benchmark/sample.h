// SPDX-License-Identifier: Apache-2.0
// One question of a benchmark and the text it is about, and what makes such samples of any size.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/random.h"
#include "benchmark/haystack.h"
#include "benchmark/reading_data.h"
#include "benchmark/task.h"

namespace starattn {

struct Sample {
  std::string context;        // the task's words and the text
  std::string question;       // follows the context directly
  std::string answer_prefix;  // how the answer begins; follows the question directly
  std::vector<std::string> answers;
};

// What the user may bring; outlives the makers.
struct Materials {
  Haystack haystack;
  ReadingData reading;  // empty unless a data file was given
};

// Samples that grow by units: sentences, noise lines, words or documents, as the task has it.
struct SampleMaker {
  std::int64_t min_units = 1;
  std::string text;  // what the text is, for the record
  // index: the sample's number in its file. The same arguments give the same bytes everywhere.
  std::function<Sample(const Random& random, std::int64_t index, std::int64_t n_units)> make;
};

SampleMaker needle_maker(const TaskInfo& task, const Materials& materials);
SampleMaker variable_tracking_maker();
SampleMaker common_words_maker(bool is_short);  // words repeated 30 and 3 times, or 6 and once
SampleMaker frequent_words_maker(std::int64_t length);
SampleMaker reading_maker(const Materials& materials);
SampleMaker facts_maker(const TaskInfo& task, const Materials& materials);

// In order of preference: the first whose smallest sample fits well is the one to use.
// length: tokens of the whole sample. materials.reading is not empty where the task needs data.
std::vector<SampleMaker> sample_makers(const TaskInfo& task, std::int64_t length,
                                       const Materials& materials);

}  // namespace starattn
