// SPDX-License-Identifier: Apache-2.0
#include "star/token_share.h"

#include <charconv>

#include "base/error.h"
#include "base/text.h"

namespace starattn {
namespace {

constexpr std::int64_t kMostParts = std::int64_t{1} << 40;  // no context has more tokens

// A whole number of parts, nothing behind it; 0 when it is none.
std::int64_t parts(std::string_view text) {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const bool is_whole = error == std::errc() && end == text.data() + text.size();
  return is_whole && value > 0 && value <= kMostParts ? value : 0;
}

}  // namespace

TokenShare TokenShare::parse(const std::string& text, char whole, const std::string& where) {
  if (!text.starts_with(whole)) return {parse_tokens(text, where), 0};
  if (text.size() == 1) return {0, 1};
  const std::int64_t divisor = text[1] == '/' ? parts(std::string_view(text).substr(2)) : 0;
  if (divisor == 0)
    fail(Exit::usage, "{}: expected tokens or {}/k with k at least 1, got '{}'", where, whole,
         text);
  return {0, divisor};
}

std::string TokenShare::text(char whole) const {
  if (divisor == 0) return std::to_string(n_tokens);
  return divisor == 1 ? std::string(1, whole) : fmt::format("{}/{}", whole, divisor);
}

}  // namespace starattn
