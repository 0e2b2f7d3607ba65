// SPDX-License-Identifier: Apache-2.0
// A JSON Lines file line by line: memory is bounded by the longest line, however long the file is.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/file.h"

namespace starattn {

struct Line {
  std::int64_t number = 0;  // from 1, blank lines counted
  std::int64_t index = 0;   // from 0, blank lines not counted
  std::uint64_t begin = 0;  // byte of the file where the text starts
  std::uint64_t end = 0;    // and where the next line does
  bool is_ended = false;    // false for a last line without line end
  std::string text;         // without the line end
};

class LineReader {
 public:
  explicit LineReader(const std::string& path);  // throws Error(no_input)
  std::optional<Line> next();  // blank lines are skipped; throws Error(io | bad_data)

 private:
  bool fill();

  static constexpr std::size_t kMaxLineBytes = std::size_t{1} << 32;
  std::string path_;
  FileDescriptor file_;
  std::string buffer_;
  std::size_t at_ = 0;
  std::uint64_t n_dropped_ = 0;  // bytes of the file before the buffer
  bool at_end_ = false;
  std::int64_t n_lines_ = 0;
  std::int64_t n_given_ = 0;
};

}  // namespace starattn
