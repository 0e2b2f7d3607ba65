// SPDX-License-Identifier: Apache-2.0
// Checks of option values beside those that CLI11 has.
#pragma once

#include <CLI/CLI.hpp>

namespace starattn {

// Of a number, its bounds included. CLI::Range lets NaN through.
CLI::Validator between(double low, double high);

}  // namespace starattn
