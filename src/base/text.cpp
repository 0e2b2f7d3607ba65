// SPDX-License-Identifier: Apache-2.0
#include "base/text.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <utility>

#include "base/error.h"

namespace starattn {
namespace {

// A number and what is written behind it, blanks apart; NaN where there is none.
std::pair<double, std::string_view> number_and_unit(std::string_view text) {
  double value = NAN;
  const char* last = text.data() + text.size();
  const auto [end, error] = std::from_chars(text.data(), last, value, std::chars_format::fixed);
  if (error != std::errc()) return {NAN, {}};
  std::string_view unit(end, static_cast<std::size_t>(last - end));
  unit.remove_prefix(std::min(unit.find_first_not_of(' '), unit.size()));
  return {value, unit};
}

}  // namespace

std::int64_t parse_tokens(std::string_view text, std::string_view option) {
  std::uint64_t unit = 1;
  std::string_view digits = text;
  if (!digits.empty()) {
    const char last = digits.back();
    if (last == 'k' || last == 'K') unit = 1U << 10;
    if (last == 'm' || last == 'M') unit = 1U << 20;
    if (unit != 1) digits.remove_suffix(1);
  }
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (digits.empty() || error != std::errc() || end != digits.data() + digits.size() ||
      value > (std::uint64_t{1} << 40) / unit) {
    fail(Exit::usage, "{}: expected a number of tokens such as 4096, 32k or 1m, got '{}'", option,
         text);
  }
  return static_cast<std::int64_t>(value * unit);
}

std::int64_t parse_blocks(std::string_view text, std::string_view option) {
  std::int64_t value = -1;
  const char* last = text.data() + text.size();
  const auto [end, error] = std::from_chars(text.data(), last, value);
  if (error != std::errc() || end != last || value < 0)
    fail(Exit::usage, "{}: expected a number of blocks such as 0 or 4, or all, got '{}'", option,
         text);
  return value;
}

std::uint64_t parse_bytes(std::string_view text, std::string_view option) {
  static constexpr std::pair<std::string_view, double> kUnits[] = {
      {"", 1},         {"B", 1},        {"KiB", 0x1p10}, {"MiB", 0x1p20}, {"GiB", 0x1p30},
      {"TiB", 0x1p40}, {"PiB", 0x1p50}, {"kB", 1e3},     {"KB", 1e3},     {"MB", 1e6},
      {"GB", 1e9},     {"TB", 1e12},    {"PB", 1e15}};
  const auto [value, unit] = number_and_unit(text);
  for (const auto& [name, scale] : kUnits) {
    if (unit == name && value >= 0 && value * scale < 0x1p63)
      return static_cast<std::uint64_t>(value * scale);
  }
  fail(Exit::usage, "{}: expected a size such as 500MiB, 100GiB or 1.5TB, got '{}'", option, text);
}

double parse_duration(std::string_view text, std::string_view option) {
  static constexpr std::pair<std::string_view, double> kUnits[] = {
      {"s", 1}, {"m", 60}, {"h", 3600}, {"d", 86400}, {"w", 604800}};
  const auto [value, unit] = number_and_unit(text);
  for (const auto& [name, seconds] : kUnits) {
    if (unit == name && value >= 0 && std::isfinite(value)) return value * seconds;
  }
  fail(Exit::usage, "{}: expected a time such as 45m, 12h, 7d or 2w, got '{}'", option, text);
}

std::string with_commas(std::int64_t number) {
  const auto bits = static_cast<std::uint64_t>(number);
  const std::string digits = std::to_string(number < 0 ? 0 - bits : bits);
  std::string text = number < 0 ? "-" : "";
  for (std::size_t i = 0; i < digits.size(); ++i) {
    if (i > 0 && (digits.size() - i) % 3 == 0) text += ',';
    text += digits[i];
  }
  return text;
}

std::string human_bytes(std::uint64_t bytes) {
  static constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
  double value = static_cast<double>(bytes);
  int unit = 0;
  while (value >= (unit == 0 ? 1024 : 1023.995) && unit < 5) {  // what would print as 1024.00
    value /= 1024;
    ++unit;
  }
  return unit == 0 ? fmt::format("{} B", bytes) : fmt::format("{:.2f} {}", value, kUnits[unit]);
}

std::string human_seconds(double seconds) {
  // The bounds are where rounding would print 1000 ms and 100.0 s.
  if (seconds < 0.9995) return fmt::format("{:.0f} ms", seconds * 1e3);
  if (seconds < 99.95) return fmt::format("{:.1f} s", seconds);
  const std::int64_t whole = std::llround(std::min(seconds, 1e15));
  if (whole < 3600) return fmt::format("{} min {:02} s", whole / 60, whole % 60);
  if (whole < 2 * 86400) return fmt::format("{} h {:02} min", whole / 3600, whole / 60 % 60);
  return fmt::format("{} d {:02} h", whole / 86400, whole / 3600 % 24);
}

std::string printable(std::string_view text) {
  std::string safe;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    const auto next = static_cast<unsigned char>(i + 1 < text.size() ? text[i + 1] : 0);
    const bool is_high = c == 0xc2 && next >= 0x80 && next < 0xa0;  // U+0080 to U+009f
    if (is_high) {
      safe += fmt::format("\\x{:02x}", next);
      ++i;
    } else if ((c < 0x20 && c != '\n' && c != '\t') || c == 0x7f) {
      safe += fmt::format("\\x{:02x}", c);
    } else {
      safe += text[i];
    }
  }
  return safe;
}

std::string one_line(std::string_view text) {
  std::string line(text);
  std::ranges::replace_if(
      line, [](char c) { return c == '\n' || c == '\r' || c == '\t'; }, ' ');
  return printable(line);
}

std::string_view first_characters(std::string_view text, std::size_t n) {
  if (text.size() <= n) return text;
  while (n > 0 && (static_cast<unsigned char>(text[n]) & 0xc0) == 0x80) --n;
  return text.substr(0, n);
}

bool is_utf8(std::string_view text, std::size_t* bad_offset) {
  const auto* s = reinterpret_cast<const unsigned char*>(text.data());
  const std::size_t n = text.size();
  for (std::size_t i = 0; i < n;) {
    const unsigned c = s[i];
    std::size_t length = 1;
    unsigned low = 0x80;
    unsigned high = 0xbf;
    if (c >= 0x80) {
      if (c >= 0xc2 && c <= 0xdf) {
        length = 2;
      } else if (c >= 0xe0 && c <= 0xef) {
        length = 3;
        if (c == 0xe0) low = 0xa0;
        if (c == 0xed) high = 0x9f;
      } else if (c >= 0xf0 && c <= 0xf4) {
        length = 4;
        if (c == 0xf0) low = 0x90;
        if (c == 0xf4) high = 0x8f;
      } else {
        length = 0;
      }
    }
    bool good = length != 0 && i + length <= n;
    for (std::size_t k = 1; good && k < length; ++k) {
      good = s[i + k] >= low && s[i + k] <= high;
      low = 0x80;
      high = 0xbf;
    }
    if (!good) {
      if (bad_offset) *bad_offset = i;
      return false;
    }
    i += length;
  }
  return true;
}

}  // namespace starattn
