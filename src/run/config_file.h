// SPDX-License-Identifier: Apache-2.0
// --config: a file of options, one `key = value` a line, for the command on the command line.
#pragma once

#include <CLI/CLI.hpp>

namespace starattn {

// Keys are the command's options without their dashes; any other is a usage error. The command line
// wins over the file. A file that cannot be read makes the parser throw CLI::FileError.
void add_config_option(CLI::App& parser);

}  // namespace starattn
