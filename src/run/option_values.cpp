// SPDX-License-Identifier: Apache-2.0
#include "run/option_values.h"

#include <algorithm>
#include <string>
#include <string_view>

#include "base/error.h"
#include "base/text.h"

namespace starattn {
namespace {

// What must not be empty: a variable of a script that was not set would pass for an option that
// was not given.
constexpr std::string_view kPaths[] = {"--model",
                                       "--input",
                                       "--output",
                                       "--checkpoint-dir",
                                       "--trace",
                                       "--html",
                                       "--baseline",
                                       "--answers",
                                       "--data",
                                       "--haystack",
                                       "--config",
                                       "--schema",
                                       "--progress-file",
                                       "--metrics-file",
                                       "--profile-file",
                                       "--json",
                                       "--csv",
                                       "--check",
                                       "--calibrate",
                                       "--machine",
                                       "--scores",
                                       "--svg",
                                       "--file",
                                       "dir",
                                       "path",
                                       "file",
                                       "files",
                                       "parts",
                                       "key"};
constexpr std::string_view kTexts[] = {"--regex", "--shard"};

// The library reads 010 as 8 and 0x10 as 16; what it gets has no leading zeros.
std::string decimal(std::string& text) {
  std::string_view digits = text;
  const bool is_negative = digits.starts_with('-');
  if (is_negative || digits.starts_with('+')) digits.remove_prefix(1);
  if (digits.empty() || digits.find_first_not_of("0123456789") != std::string_view::npos)
    return fmt::format("expected a whole number, got '{}'", text);
  digits.remove_prefix(std::min(digits.find_first_not_of('0'), digits.size() - 1));
  text = (is_negative ? "-" : "") + std::string(digits);
  return "";
}

std::string utf8(std::string& text) {
  std::size_t bad = 0;
  return is_utf8(text, &bad) ? "" : fmt::format("expected text in UTF-8, byte {} is none", bad);
}

std::string not_empty(std::string& path) {
  return path.empty() ? "expected a path, got an empty text" : "";
}

std::string not_an_empty_text(std::string& text) {
  const std::string wrong = utf8(text);
  return text.empty() ? "expected a text, got an empty one" : wrong;
}

// Before every other check of the option.
void check_first(CLI::Option& option, std::string (*check)(std::string&)) {
  option.transform(CLI::Validator(check, ""));
}

void check_values(CLI::Option& option) {
  const std::string type = option.get_type_name();
  if (std::ranges::find(kPaths, option.get_name()) != std::end(kPaths)) {
    check_first(option, not_empty);
  } else if (std::ranges::find(kTexts, option.get_name()) != std::end(kTexts)) {
    check_first(option, not_an_empty_text);
  } else if (type.starts_with("INT") || type.starts_with("UINT")) {
    check_first(option, decimal);
  } else if (type.starts_with("TEXT")) {
    check_first(option, utf8);
  }
}

}  // namespace

void check_option_values(CLI::App& parser) {
  for (CLI::Option* option : parser.get_options()) check_values(*option);
  for (CLI::App* command : parser.get_subcommands([](CLI::App*) { return true; }))
    check_option_values(*command);
}

}  // namespace starattn
