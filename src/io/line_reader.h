// SPDX-License-Identifier: Apache-2.0
// JSON Lines line by line: memory is bounded by the longest line, however long the text is. A table
// of questions (question_table.h) is read whole, and gives the lines that it stands for.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "io/question_table.h"
#include "io/text_source.h"

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
  // What somebody brings, "-" for standard input; or a file of our own, whose offsets count. Both
  // throw as TextSource does.
  explicit LineReader(const std::string& path, StopWaiting stop = {},
                      TextSource::Kind kind = TextSource::Kind::brought);
  std::optional<Line> next();  // blank lines are skipped
  bool is_packed() const { return source_.is_packed(); }

 private:
  static constexpr std::size_t kMaxTableBytes = std::size_t{1} << 30;

  std::optional<Line> next_of_table();
  bool fill();

  static constexpr std::size_t kMaxLineBytes = std::size_t{1} << 32;
  std::string name_;
  TextSource source_;
  std::optional<std::vector<TableDocument>> table_;
  std::string buffer_;
  std::size_t at_ = 0;
  std::uint64_t n_dropped_ = 0;  // bytes of the file before the buffer
  bool at_end_ = false;
  std::int64_t n_lines_ = 0;
  std::int64_t n_given_ = 0;
};

}  // namespace starattn
