// SPDX-License-Identifier: Apache-2.0
// The log goes to stderr, one line an event, as text or as JSON. stdout is for results only.
#pragma once

#include <spdlog/spdlog.h>

#include <nlohmann/json_fwd.hpp>
#include <string>

namespace starattn::log {

enum class Format { text, json };

struct Setup {
  Format format = Format::text;
  bool quiet = false;  // a rank that is not rank 0 prints errors only
  std::string prefix;  // "rank 3", in front of what it prints
  bool timed = false;  // text: the time of day in front of every line; JSON always has it
};
void setup(const Setup& setup);

using spdlog::debug;
using spdlog::error;
using spdlog::info;
using spdlog::warn;

// The same as info(message), and for a program: as JSON the line has `event` and the fields.
void event(const char* name, const nlohmann::ordered_json& fields, const std::string& message);
bool is_json();

// On a terminal: text that stays below the log, in place of what was there before; "" takes it
// away. Elsewhere nothing.
bool has_live_line();
void show_live_line(const std::string& text);

}  // namespace starattn::log
