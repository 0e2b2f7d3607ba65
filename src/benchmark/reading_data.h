// SPDX-License-Identifier: Apache-2.0
// Questions with the documents that answer them, from a file that the user names: SQuAD's JSON for
// qa_1, HotpotQA's for qa_2. We ship neither.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace starattn {

struct ReadingData {
  struct Question {
    std::string text;
    std::vector<std::string> answers;  // each one right
    std::vector<std::int64_t> own;     // documents (indices) that answer it
    std::vector<std::int64_t> near;    // of the same article: the first to stand beside them
  };
  std::vector<std::string> documents;  // all different
  std::vector<Question> questions;     // in the file's order; those without an answer left out
  std::string source;                  // the file's name

  bool empty() const { return questions.empty(); }
};

// task: "qa_1" or "qa_2". Throws Error(no_input | bad_data) naming file, place and key.
ReadingData read_reading_data(const std::string& path, std::string_view task);

}  // namespace starattn
