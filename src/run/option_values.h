// SPDX-License-Identifier: Apache-2.0
// What every option's value must be, whichever command has the option and wherever the value stands
// (command line or --config): whole numbers in decimal (010 is 10), paths not empty, texts UTF-8.
#pragma once

#include <CLI/CLI.hpp>

namespace starattn {

// On every option of the parser and its commands, once all are declared.
void check_option_values(CLI::App& parser);

}  // namespace starattn
