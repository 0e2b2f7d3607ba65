// SPDX-License-Identifier: Apache-2.0
// Reading: a question about one of many documents. Units are the documents beside its own.
#include <numeric>

#include "base/error.h"
#include "benchmark/sample.h"

namespace starattn {
namespace {

constexpr const char* kInstruction =
    "Answer the question based on the given documents. Only give me the answer and do not output "
    "any other words.";

// n others than the question's own: those near it, then any, again from the first when all are in.
std::vector<std::int64_t> others(const ReadingData& data, const ReadingData::Question& question,
                                 Random random, std::int64_t n) {
  std::vector<std::int64_t> order(data.documents.size());
  std::iota(order.begin(), order.end(), 0);
  random.shuffle(order);
  std::vector<bool> is_placed(data.documents.size());
  for (const std::int64_t place : question.own) is_placed[place] = true;
  std::vector<std::int64_t> pool;
  for (const std::vector<std::int64_t>& from : {question.near, order}) {
    for (const std::int64_t place : from) {
      if (!is_placed[place]) pool.push_back(place);
      is_placed[place] = true;
    }
  }
  std::vector<std::int64_t> chosen;
  for (std::int64_t i = 0; i < n && !pool.empty(); ++i)
    chosen.push_back(pool[static_cast<std::size_t>(i) % pool.size()]);
  return chosen;
}

Sample make(const ReadingData& data, const Random& random, std::int64_t index, std::int64_t n) {
  const auto& question = data.questions[static_cast<std::size_t>(index) % data.questions.size()];
  std::vector<std::int64_t> shown = question.own;
  const auto more = others(data, question, random.stream("others"), n);
  shown.insert(shown.end(), more.begin(), more.end());
  random.stream("order").shuffle(shown);
  std::string text;
  for (std::size_t i = 0; i < shown.size(); ++i) {
    text += fmt::format("{}Document {}:\n{}", i == 0 ? "" : "\n\n", i + 1,
                        data.documents[static_cast<std::size_t>(shown[i])]);
  }
  return {fmt::format("{}\n\nThe following are given documents.\n\n{}\n\n", kInstruction, text),
          fmt::format("{}\n\nQuestion: {}", kInstruction, question.text),
          " Answer:", question.answers};
}

}  // namespace

SampleMaker reading_maker(const Materials& materials) {
  const ReadingData& data = materials.reading;
  STARATTN_CHECK(!data.empty());
  SampleMaker maker;
  maker.min_units = 0;
  maker.text = "documents of " + data.source;
  maker.make = [&data](const Random& random, std::int64_t index, std::int64_t n_units) {
    return make(data, random, index, n_units);
  };
  return maker;
}

}  // namespace starattn
