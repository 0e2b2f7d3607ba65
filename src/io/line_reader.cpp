// SPDX-License-Identifier: Apache-2.0
#include "io/line_reader.h"

#include <algorithm>

#include "base/error.h"
#include "base/text.h"

namespace starattn {

LineReader::LineReader(const std::string& path, StopWaiting stop, TextSource::Kind kind)
    : name_(name_of_input(path)), source_(path, kind, std::move(stop)) {
  // Whatever JSON Lines are called, they begin so.
  const bool is_json = source_.beginning().find('{') != std::string_view::npos;
  if (kind == TextSource::Kind::brought && is_question_table(path) && !is_json)
    table_ = documents_of_table(read_text(source_, kMaxTableBytes), name_);
}

std::optional<Line> LineReader::next_of_table() {
  if (n_given_ == std::ssize(*table_)) return std::nullopt;
  Line line;
  line.index = n_given_++;
  line.number = (*table_)[line.index].line;
  line.text = std::move((*table_)[line.index].text);
  return line;
}

std::optional<Line> LineReader::next() {
  if (table_) return next_of_table();
  for (;;) {
    std::size_t end = buffer_.find('\n', at_);
    while (end == std::string::npos && !at_end_) {
      const std::size_t searched = buffer_.size() - at_;
      if (searched > kMaxLineBytes) {
        fail(Exit::bad_data, "{}:{}: the line is longer than {} bytes", name_, n_lines_ + 1,
             kMaxLineBytes);
      }
      at_end_ = !fill();
      end = buffer_.find('\n', at_ + searched);
    }
    if (end == std::string::npos && at_ == buffer_.size()) return std::nullopt;
    const std::size_t stop = std::min(end, buffer_.size());
    Line line;
    line.number = ++n_lines_;
    line.is_ended = end != std::string::npos;
    line.begin = n_dropped_ + at_;
    line.text = buffer_.substr(at_, stop - at_);
    at_ = line.is_ended ? end + 1 : buffer_.size();
    line.end = n_dropped_ + at_;
    if (line.number == 1 && line.text.starts_with(kByteOrderMark)) {
      line.text.erase(0, kByteOrderMark.size());
      line.begin += kByteOrderMark.size();
    }
    if (line.text.ends_with('\r')) line.text.pop_back();
    if (line.text.find_first_not_of(" \t") == std::string::npos) continue;
    line.index = n_given_++;
    return line;
  }
}

bool LineReader::fill() {
  buffer_.erase(0, at_);
  n_dropped_ += at_;
  at_ = 0;
  constexpr std::size_t kRead = std::size_t{1} << 20;
  const std::size_t old = buffer_.size();
  buffer_.resize(old + kRead);
  const std::size_t n = source_.read(buffer_.data() + old, kRead);
  buffer_.resize(old + n);
  return n > 0;
}

}  // namespace starattn
