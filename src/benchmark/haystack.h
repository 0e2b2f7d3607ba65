// SPDX-License-Identifier: Apache-2.0
// The text that hides what is asked: sentence after sentence, as many as are wanted. Our own
// generated prose, or the sentences of a file, which begin again at its end.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/random.h"

namespace starattn {

class Haystack {
 public:
  Haystack() = default;  // generated prose
  // Sentences end at . ! or ? before white space, and at an empty line.
  // Throws Error(no_input | bad_data): unreadable, not UTF-8, no sentence.
  static Haystack read(const std::string& path);

  // Sentences 0 .. n - 1 of the document that `random` is the key of: a prefix of those for n + 1.
  std::vector<std::string> sentences(Random random, std::int64_t n) const;
  // For the record: says that generated prose stands in for the benchmark's essays.
  const std::string& description() const { return description_; }

 private:
  std::vector<std::string> of_file_;  // empty: generated
  std::string description_ = "generated prose, a substitute for the benchmark's own texts";
};

std::vector<std::string> split_sentences(std::string_view text);

}  // namespace starattn
