// SPDX-License-Identifier: Apache-2.0
// Counting words: the common ones of a numbered list (cwe), the frequent ones of a coded text
// (fwe).
#include <algorithm>
#include <set>

#include "base/error.h"
#include "benchmark/sample.h"
#include "benchmark/words.h"

namespace starattn {
namespace {

constexpr std::int64_t kCommonWords = 10;

struct Repeats {
  int common;
  int others;
};

std::string numbered(const std::vector<std::string>& words) {
  std::string text;
  for (std::size_t i = 0; i < words.size(); ++i)
    text += fmt::format("{}{}. {}", i == 0 ? "" : " ", i + 1, words[i]);
  return text;
}

// The first ten words are the common ones.
Sample word_list(const std::vector<std::string>& words, Repeats repeats, Random random) {
  std::vector<std::string> list;
  for (std::size_t i = 0; i < words.size(); ++i)
    list.insert(list.end(), i < kCommonWords ? repeats.common : repeats.others, words[i]);
  random.shuffle(list);
  return {fmt::format("Below is a numbered list of words. In these words, some appear more often "
                      "than others. Memorize the ones that appear most often.\n{}\n",
                      numbered(list)),
          "Question: What are the 10 most common words in the above list?",
          " Answer: The top 10 words that appear most often in the list are:",
          {words.begin(), words.begin() + kCommonWords}};
}

std::vector<std::string> coded_words(Random random, std::int64_t n) {
  std::vector<std::string> words;
  for (std::set<std::string> taken; static_cast<std::int64_t>(words.size()) < n;) {
    std::string word;
    for (int i = 0; i < 6; ++i) word += static_cast<char>('a' + random.below(26));
    if (taken.insert(word).second) words.push_back(word);
  }
  return words;
}

// How often the word of rank k (from 1) appears among n: n k^-2 / zeta(2), rounded down.
std::int64_t frequency(std::int64_t n, std::int64_t k) {
  constexpr double kZeta2 = 1.6449340668482264;  // pi^2 / 6
  return static_cast<std::int64_t>(static_cast<double>(n) / static_cast<double>(k * k) / kZeta2);
}

}  // namespace

SampleMaker common_words_maker(bool is_short) {
  SampleMaker maker;
  maker.min_units = kCommonWords + 1;
  maker.text = fmt::format("numbered words: common ones {} times, others {}", is_short ? 6 : 30,
                           is_short ? 1 : 3);
  maker.make = [is_short](const Random& random, std::int64_t, std::int64_t n_units) {
    const auto example_words = different_words(random.stream("example words"), is_short ? 20 : 40);
    const Sample example = word_list(example_words, is_short ? Repeats{3, 1} : Repeats{10, 3},
                                     random.stream("example order"));
    Sample sample = word_list(different_words(random.stream("words"), n_units),
                              is_short ? Repeats{6, 1} : Repeats{30, 3}, random.stream("order"));
    sample.context = fmt::format("{}{}{} {}\n{}", example.context, example.question,
                                 example.answer_prefix, numbered(example.answers), sample.context);
    return sample;
  };
  return maker;
}

// Units are words; from 150 on, ranks 2 to 5 differ in frequency.
SampleMaker frequent_words_maker(std::int64_t length) {
  SampleMaker maker;
  maker.min_units = 150;
  maker.text = "coded words";
  const std::int64_t n_vocabulary = std::max<std::int64_t>(length / 50, 5);
  maker.make = [n_vocabulary](const Random& random, std::int64_t, std::int64_t n_units) {
    std::vector<std::string> vocabulary = coded_words(random.stream("vocabulary"), n_vocabulary);
    vocabulary[0] = "...";
    std::vector<std::int64_t> text;  // indices into the vocabulary
    for (std::int64_t i = 0; i < n_vocabulary; ++i)
      text.insert(text.end(), frequency(n_units, i + 1), i);
    random.stream("order").shuffle(text);
    std::string joined;
    for (const std::int64_t i : text) {
      if (!joined.empty()) joined += ' ';
      joined += vocabulary[i];
    }
    return Sample{
        fmt::format("Read the following coded text and track the frequency of each coded word. "
                    "Find the three most frequently appeared coded words. {}\n",
                    joined),
        "Question: Do not provide any explanation. Please ignore the dots '....'. What are the "
        "three most frequently appeared words in the above coded text?",
        " Answer: According to the coded text above, the three most frequently appeared words are:",
        {vocabulary.begin() + 1, vocabulary.begin() + 4}};
  };
  return maker;
}

}  // namespace starattn
