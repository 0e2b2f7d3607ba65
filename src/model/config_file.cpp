// SPDX-License-Identifier: Apache-2.0
#include "model/config_file.h"

#include "base/file.h"

namespace starattn {
namespace {

constexpr JsonLimits kLimits = {std::size_t{16} << 20, 32};

// Where `text` begins with one of Python's numbers that are none: it; else empty.
std::string_view python_number(std::string_view text) {
  for (const std::string_view word : {"NaN", "Infinity", "-Infinity"})
    if (text.starts_with(word)) return word;
  return {};
}

std::string with_python_numbers_quoted(std::string_view text) {
  std::string result;
  bool is_in_quotes = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const std::string_view word = is_in_quotes ? std::string_view() : python_number(text.substr(i));
    if (!word.empty()) {
      result.append("\"").append(word).append("\"");
      i += word.size() - 1;
      continue;
    }
    if (text[i] == '"') is_in_quotes = !is_in_quotes;
    result += text[i];
    if (is_in_quotes && text[i] == '\\' && i + 1 < text.size()) result += text[++i];
  }
  return result;
}

}  // namespace

Json read_config_file(const std::string& path) {
  return parse_json(with_python_numbers_quoted(read_file(path, kLimits.max_bytes)), path, kLimits);
}

}  // namespace starattn
