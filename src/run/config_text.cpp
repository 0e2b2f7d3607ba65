// SPDX-License-Identifier: Apache-2.0
#include "run/config_text.h"

#include <algorithm>
#include <cstdint>
#include <cstdlib>

#include "base/error.h"
#include "base/text.h"

namespace starattn {
namespace {

constexpr std::string_view kBlanks = " \t\r";

std::string utf8_of(std::uint32_t code) {
  const auto byte = [](std::uint32_t bits) { return static_cast<char>(bits); };
  if (code < 0x80) return {byte(code)};
  const char last = byte(0x80 | (code & 0x3f));
  if (code < 0x800) return {byte(0xc0 | code >> 6), last};
  const char middle = byte(0x80 | (code >> 6 & 0x3f));
  if (code < 0x10000) return {byte(0xe0 | code >> 12), middle, last};
  return {byte(0xf0 | code >> 18), byte(0x80 | (code >> 12 & 0x3f)), middle, last};
}

class ConfigParser {
 public:
  ConfigParser(std::string_view text, const std::string& name) : rest_(text), name_(name) {}

  std::vector<ConfigEntry> entries() {
    std::vector<ConfigEntry> all;
    for (skip_empty_lines(); !rest_.empty(); skip_empty_lines()) all.push_back(entry());
    return all;
  }

 private:
  template <typename... Args>
  [[noreturn]] void refuse(fmt::format_string<Args...> format, Args&&... args) const {
    fail(Exit::usage, "--config {}:{}: {}", name_, line_,
         fmt::format(format, std::forward<Args>(args)...));
  }

  bool next_is(char c) const { return !rest_.empty() && rest_.front() == c; }
  bool at_line_end() const { return rest_.empty() || next_is('\n'); }
  std::string line_end() const {
    return one_line(first_characters(rest_.substr(0, rest_.find('\n')), 40));
  }
  char take() {
    const char c = rest_.front();
    rest_.remove_prefix(1);
    if (c == '\n') ++line_;
    return c;
  }
  void skip_blanks() {
    rest_.remove_prefix(std::min(rest_.find_first_not_of(kBlanks), rest_.size()));
  }
  void skip_blanks_and_comment() {
    skip_blanks();
    if (next_is('#')) rest_.remove_prefix(std::min(rest_.find('\n'), rest_.size()));
  }
  void skip_empty_lines() {
    for (skip_blanks_and_comment(); next_is('\n'); skip_blanks_and_comment()) take();
  }

  ConfigEntry entry() {
    ConfigEntry entry;
    entry.line = line_;
    if (next_is('['))
      refuse("sections such as '{}' are not known here; expected lines such as block-size = 4096",
             line_end());
    const std::string whole = line_end();
    constexpr std::string_view kKey =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_";
    const std::size_t n = std::min(rest_.find_first_not_of(kKey), rest_.size());
    entry.key = rest_.substr(0, n);
    rest_.remove_prefix(n);
    skip_blanks();
    if (n == 0 || !next_is('='))
      refuse("expected key = value, such as block-size = 4096, got '{}'", whole);
    take();
    skip_blanks();
    if (at_line_end() || next_is('#'))
      refuse("{}: expected a value behind the '='; an empty text is \"\"", entry.key);
    if (next_is('[')) {
      entry.values = list();
    } else {
      entry.is_bare = !next_is('"') && !next_is('\'');
      entry.values.push_back(value("#\n"));
    }
    skip_blanks_and_comment();
    if (!at_line_end())
      refuse(
          "{}: expected the end of the line behind the value, got '{}'; text with blanks goes in "
          "double quotes",
          entry.key, line_end());
    return entry;
  }

  std::vector<std::string> list() {
    const int begin = line_;
    std::vector<std::string> values;
    take();
    for (;;) {
      skip_empty_lines();
      if (next_is(']')) break;
      if (rest_.empty()) refuse("the list that begins in line {} is not closed with ]", begin);
      values.push_back(value(",]#\n"));
      skip_empty_lines();
      if (next_is(']')) break;
      if (!next_is(','))
        refuse("expected ',' or ']' in the list that begins in line {}, got '{}'", begin,
               line_end());
      take();
    }
    take();
    return values;
  }

  // ends: what ends a word without quotes, blanks aside.
  std::string value(std::string_view ends) {
    if (next_is('"')) return quoted();
    if (next_is('\'')) return literal();
    std::string_view word = rest_.substr(0, std::min(rest_.find_first_of(ends), rest_.size()));
    word = word.substr(0, std::min(word.find_first_of(kBlanks), word.size()));
    if (word.empty()) refuse("expected a value, got '{}'", line_end());
    if (word.find_first_of("\"'[]{}") != std::string_view::npos)
      refuse("'{}': text with quotes or brackets goes in quotes", one_line(word));
    rest_.remove_prefix(word.size());
    return std::string(word);
  }

  // As it stands, between '...'.
  std::string literal() {
    take();
    const std::size_t end = rest_.find_first_of("'\n");
    if (end == std::string_view::npos || rest_[end] == '\n')
      refuse("the quote ' is not closed in its line");
    std::string text(rest_.substr(0, end));
    rest_.remove_prefix(end + 1);
    return text;
  }

  std::string quoted() {
    take();
    std::string text;
    for (;;) {
      if (at_line_end()) refuse("the quote \" is not closed in its line; \\n is a line feed in it");
      const char c = take();
      if (c == '"') return text;
      if (c == '\\' && at_line_end()) continue;  // said above
      text += c == '\\' ? escaped() : std::string(1, c);
    }
  }

  std::string escaped() {
    static constexpr std::pair<char, char> kEscapes[] = {
        {'n', '\n'}, {'t', '\t'}, {'r', '\r'}, {'b', '\b'}, {'f', '\f'}, {'"', '"'}, {'\\', '\\'}};
    const char c = take();
    for (const auto& [name, meaning] : kEscapes)
      if (c == name) return {meaning};
    if (c == 'u') return by_code(4);
    if (c == 'U') return by_code(8);
    refuse("\\{} has no meaning in double quotes; in single quotes a backslash is text",
           one_line(std::string(1, c)));
  }

  std::string by_code(std::size_t n_digits) {
    const std::string digits(rest_.substr(0, n_digits));
    const bool is_hex = digits.size() == n_digits &&
                        digits.find_first_not_of("0123456789abcdefABCDEF") == std::string::npos;
    const auto code =
        is_hex ? static_cast<std::uint32_t>(std::strtoul(digits.c_str(), nullptr, 16)) : 0U;
    if (code == 0 || code > 0x10ffff || (code >= 0xd800 && code < 0xe000))
      refuse("expected {} hexadecimal digits of a character, got '{}'", n_digits,
             one_line(first_characters(digits, n_digits)));
    rest_.remove_prefix(n_digits);
    return utf8_of(code);
  }

  std::string_view rest_;
  const std::string& name_;
  int line_ = 1;
};

}  // namespace

std::vector<ConfigEntry> parse_config(std::string_view text, const std::string& name) {
  const auto is_control = [](char c) { return static_cast<unsigned char>(c) < 0x20; };
  for (const char c : text)
    if (is_control(c) && kBlanks.find(c) == std::string_view::npos && c != '\n')
      fail(Exit::usage, "--config {}: expected text, got the control character 0x{:02x}", name,
           static_cast<unsigned>(c));
  return ConfigParser(text, name).entries();
}

}  // namespace starattn
