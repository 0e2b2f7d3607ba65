// SPDX-License-Identifier: Apache-2.0
// What the parser knows of its commands and options, as pages for man and as completions for bash.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

namespace starattn {

// The page of the program (its commands and exit codes), or of one of its commands (its options).
std::string manual_page(const CLI::App& app);
std::string manual_name(const CLI::App& app);  // "starattn-run"

// A script to be sourced: commands, options, the words that an option takes, and files elsewhere.
std::string bash_completion(const CLI::App& parser);

}  // namespace starattn
