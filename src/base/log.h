// SPDX-License-Identifier: Apache-2.0
// The log goes to stderr, one line an event, as text or as JSON. stdout is for results only.
#pragma once

#include <spdlog/spdlog.h>

#include <string>

namespace starattn::log {

enum class Format { text, json };

// quiet: a rank that is not rank 0 prints errors only. prefix: "rank 3" in front of what it prints.
void setup(Format format, bool quiet, const std::string& prefix = "");

using spdlog::debug;
using spdlog::error;
using spdlog::info;
using spdlog::warn;

}  // namespace starattn::log
