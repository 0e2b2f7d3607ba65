// SPDX-License-Identifier: Apache-2.0
#include "grammar/code_points.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <string>

#include "base/error.h"

namespace starattn {
namespace {

constexpr char32_t kSurrogates = 0xd800;
constexpr char32_t kBehindSurrogates = 0xe000;

// Characters first .. last whose UTF-8 has equally many bytes: split until the bytes at each place
// are a range of their own, as the last two of U+0840 .. U+0FFF are.
void add_utf8(Expressions& in, char32_t first, char32_t last, std::vector<Expression>& ways) {
  const std::string from = utf8_of(first);
  const std::string to = utf8_of(last);
  for (std::size_t n = 1; n < from.size(); ++n) {  // bytes at the end
    const char32_t low_bits = (char32_t{1} << (6 * n)) - 1;
    if ((first & ~low_bits) == (last & ~low_bits)) break;
    if ((first & low_bits) != 0) {
      add_utf8(in, first, first | low_bits, ways);
      return add_utf8(in, (first | low_bits) + 1, last, ways);
    }
    if ((last & low_bits) != low_bits) {
      add_utf8(in, first, (last & ~low_bits) - 1, ways);
      return add_utf8(in, last & ~low_bits, last, ways);
    }
  }
  Expression e = kEmptyText;
  for (std::size_t i = from.size(); i-- > 0;) {
    e = in.sequence(
        in.one_of(static_cast<unsigned char>(from[i]), static_cast<unsigned char>(to[i])), e);
  }
  ways.push_back(e);
}

}  // namespace

CodePoints CodePoints::all() {
  return CodePoints().others();
}

void CodePoints::add(char32_t first, char32_t last) {
  STARATTN_CHECK(first <= last && last <= kHighest);
  if (first < kSurrogates && last >= kBehindSurrogates) {
    add(first, kSurrogates - 1);
    return add(kBehindSurrogates, last);
  }
  if (first >= kSurrogates && first < kBehindSurrogates) first = kBehindSurrogates;
  if (last >= kSurrogates && last < kBehindSurrogates) last = kSurrogates - 1;
  if (first > last) return;
  const auto [begin, end] =
      std::equal_range(ranges_.begin(), ranges_.end(), Range{first, last},
                       [](const Range& a, const Range& b) { return a.last + 1 < b.first; });
  if (begin != end) {
    first = std::min(first, begin->first);
    last = std::max(last, std::prev(end)->last);
  }
  ranges_.insert(ranges_.erase(begin, end), {first, last});
}

void CodePoints::add(const CodePoints& other) {
  for (const Range& range : other.ranges_) add(range.first, range.last);
}

CodePoints CodePoints::others() const {
  CodePoints others;
  char32_t next = 0;
  for (const Range& range : ranges_) {
    if (next < range.first) others.add(next, range.first - 1);
    next = range.last + 1;
  }
  if (next <= kHighest) others.add(next, kHighest);
  return others;
}

CodePoints CodePoints::without(const CodePoints& other) const {
  CodePoints outside = others();
  outside.add(other);
  return outside.others();
}

bool CodePoints::contains(char32_t c) const {
  return std::ranges::any_of(ranges_, [&](const Range& r) { return r.first <= c && c <= r.last; });
}

std::u32string characters_of(std::string_view text) {
  std::u32string characters;
  for (std::size_t i = 0; i < text.size();) {
    const auto lead = static_cast<unsigned char>(text[i]);
    const std::size_t n = lead < 0x80 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
    STARATTN_CHECK(i + n <= text.size());
    char32_t c = n == 1 ? lead : lead & (0x7fU >> n);
    for (std::size_t k = 1; k < n; ++k)
      c = c << 6 | (static_cast<unsigned char>(text[i + k]) & 0x3fU);
    characters += c;
    i += n;
  }
  return characters;
}

std::string utf8_of(char32_t c) {
  if (c < 0x80) return {static_cast<char>(c)};
  const auto tail = [&](int shift) { return static_cast<char>(0x80U | (c >> shift & 0x3fU)); };
  if (c < 0x800) return {static_cast<char>(0xc0U | c >> 6), tail(0)};
  if (c < 0x10000) return {static_cast<char>(0xe0U | c >> 12), tail(6), tail(0)};
  return {static_cast<char>(0xf0U | c >> 18), tail(12), tail(6), tail(0)};
}

Expression utf8_of(Expressions& in, const CodePoints& set) {
  constexpr char32_t kFirsts[] = {0, 0x80, 0x800, 0x10000};
  constexpr char32_t kLasts[] = {0x7f, 0x7ff, 0xffff, CodePoints::kHighest};
  std::vector<Expression> ways;
  for (const CodePoints::Range& range : set.ranges()) {
    for (int n = 0; n < 4; ++n) {  // bytes less one
      const char32_t first = std::max(range.first, kFirsts[n]);
      const char32_t last = std::min(range.last, kLasts[n]);
      if (first <= last) add_utf8(in, first, last, ways);
    }
  }
  return in.either(std::move(ways));
}

Expression json_of(Expressions& in, const CodePoints& set) {
  CodePoints escaped(0, 0x1f);
  escaped.add('"', '"');
  escaped.add('\\', '\\');
  std::vector<std::string> escapes;
  for (char32_t c = 0; c <= '\\'; ++c) {
    if (!set.contains(c) || !escaped.contains(c)) continue;
    constexpr std::string_view kShort = "\b\f\n\r\t\"\\";
    constexpr std::string_view kLetters = "bfnrt\"\\";
    const std::size_t at = kShort.find(static_cast<char>(c));
    escapes.push_back(at == std::string_view::npos
                          ? fmt::format("\\u{:04x}", static_cast<unsigned>(c))
                          : std::string("\\") + kLetters[at]);
  }
  return in.either({utf8_of(in, set.without(escaped)), in.any_of_texts(std::move(escapes))});
}

Expression any_json_character(Expressions& in) {
  CodePoints plain(0x20, CodePoints::kHighest);
  plain = plain.without({'"', '"'}).without({'\\', '\\'});
  const auto one_of = [&](std::string_view bytes) {
    ByteSet set;
    for (const char byte : bytes) set.set(static_cast<unsigned char>(byte));
    return in.one_of(set);
  };
  const Expression digit = one_of("0123456789abcdefABCDEF");
  // No half of a pair of surrogates: nobody can read one alone.
  const Expression code =
      in.either({in.sequence({one_of("0123456789abcefABCEF"), digit, digit, digit}),
                 in.sequence({one_of("dD"), one_of("01234567"), digit, digit})});
  return in.either({utf8_of(in, plain), in.sequence(in.text("\\"), one_of("\"\\/bfnrt")),
                    in.sequence(in.text("\\u"), code)});
}

}  // namespace starattn
