// SPDX-License-Identifier: Apache-2.0
#include "run/option_checks.h"

#include <fmt/format.h>

#include <charconv>

namespace starattn {

CLI::Validator between(double low, double high) {
  const std::string range = fmt::format("{} to {}", low, high);
  const auto check = [=](const std::string& text) {
    double value = 0;
    const char* last = text.data() + text.size();
    const auto [end, error] = std::from_chars(text.data(), last, value);
    const bool good = error == std::errc() && end == last && value >= low && value <= high;
    return good ? std::string() : fmt::format("expected {}, got '{}'", range, text);
  };
  return CLI::Validator(check, range);
}

}  // namespace starattn
