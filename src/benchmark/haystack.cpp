// SPDX-License-Identifier: Apache-2.0
#include "benchmark/haystack.h"

#include "base/error.h"
#include "base/text.h"
#include "benchmark/words.h"
#include "io/text_source.h"

namespace starattn {
namespace {

constexpr std::size_t kMaxFileBytes = std::size_t{1} << 30;

// a: adjective, n: noun, v: verb, t: time, w: place or manner; after a '%'.
constexpr std::string_view kShapes[] = {"The %a %n %v the %a %n.",
                                        "%T the %n %v the %a %n.",
                                        "The %n %v the %n %w.",
                                        "Nobody %v the %a %n before the %n.",
                                        "%T the %a %n %v the %n, and the %n %v the %n.",
                                        "The %n that %v the %n was %a.",
                                        "The %a %n %v the %n because the %n was too %a.",
                                        "Some say the %n %v the %a %n %w.",
                                        "The %n was %a, so the %n %v the %n.",
                                        "%T the %n and the %n %v the %a %n %w.",
                                        "Where the %n %v the %n, the %a %n %v the %n.",
                                        "Every %n %v the %n, but the %a %n %v the %a %n."};
constexpr std::string_view kTimes[] = {
    "In the morning", "At noon",          "Before sunrise", "After the rain", "Last week",
    "In early March", "On market day",    "Once a year",    "That evening",   "During the storm",
    "Two days later", "When it was dark", "At the weekend", "In late summer", "By midnight"};
constexpr std::string_view kWays[] = {
    "near the river bank",  "without a word",         "behind the old mill", "for a while",
    "with great patience",  "along the coast",        "across the valley",   "under a grey sky",
    "in front of everyone", "as quickly as it could", "on the far side",     "for the first time"};

std::string_view word_for(char slot, Random& random) {
  switch (slot) {
    case 'a':
      return random.pick(adjectives());
    case 'n':
      return random.pick(nouns());
    case 'v':
      return random.pick(verbs());
    case 'T':
      return random.pick(kTimes);
    default:
      return random.pick(kWays);
  }
}

std::string made_sentence(Random random) {
  const std::string_view shape = random.pick(kShapes);
  std::string text;
  for (std::size_t i = 0; i < shape.size(); ++i) {
    if (shape[i] == '%') {
      text += word_for(shape[++i], random);
    } else {
      text += shape[i];
    }
  }
  return text;
}

bool is_space(char c) {
  return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

}  // namespace

std::vector<std::string> split_sentences(std::string_view text) {
  std::vector<std::string> sentences;
  std::string sentence;  // white space inside becomes one space
  int n_newlines = 0;
  const auto finish = [&] {
    if (!sentence.empty()) sentences.push_back(std::move(sentence));
    sentence.clear();
  };
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (!is_space(c)) {
      n_newlines = 0;
      sentence += c;
      continue;
    }
    n_newlines += c == '\n';
    const char before = i > 0 ? text[i - 1] : ' ';
    if (before == '.' || before == '!' || before == '?' || n_newlines > 1) {
      finish();
    } else if (!sentence.empty() && i + 1 < text.size() && !is_space(text[i + 1])) {
      sentence += ' ';
    }
  }
  finish();
  return sentences;
}

Haystack Haystack::read(const std::string& path) {
  const std::string text = read_text(path, kMaxFileBytes);
  Haystack haystack;
  haystack.of_file_ = split_sentences(text);
  if (haystack.of_file_.empty())
    fail(Exit::bad_data, "{}: expected at least one sentence, got none", path);
  haystack.description_ = "sentences of " + path.substr(path.find_last_of('/') + 1);
  return haystack;
}

std::vector<std::string> Haystack::sentences(Random random, std::int64_t n) const {
  std::vector<std::string> all;
  all.reserve(static_cast<std::size_t>(n));
  const std::size_t first = of_file_.empty() ? 0 : random.stream("first").below(of_file_.size());
  for (std::size_t i = 0; i < static_cast<std::size_t>(n); ++i) {
    all.push_back(of_file_.empty() ? made_sentence(random.stream(std::uint64_t{i}))
                                   : of_file_[(first + i) % of_file_.size()]);
  }
  return all;
}

}  // namespace starattn
