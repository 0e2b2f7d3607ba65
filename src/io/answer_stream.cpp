// SPDX-License-Identifier: Apache-2.0
#include "io/answer_stream.h"

#include <unistd.h>

#include "base/file.h"
#include "io/line_digest.h"

namespace starattn {
namespace {

void write_line(const std::string& line) {
  write_all(STDOUT_FILENO, line + "\n", "standard output");
}

}  // namespace

void AnswerStream::expect_error(const std::string& line) {
  write_line(line);
}

void AnswerStream::put(const std::string&, const std::string&, const std::string& line) {
  write_line(with_digest(line));
}

void AnswerStream::put_error(std::int64_t, const std::string& line) {
  write_line(line);
}

}  // namespace starattn
