// SPDX-License-Identifier: Apache-2.0
// The text of a --config file: lines of `key = value`, with the values of TOML and, beside them,
// words without quotes (block-size = 32k).
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace starattn {

struct ConfigEntry {
  int line = 0;  // from 1
  std::string key;
  std::vector<std::string> values;  // a list's; else one
  bool is_bare = false;             // one word without quotes
};

// Throws Error(usage) with the line: "job.toml:3: ...". name: the file's.
std::vector<ConfigEntry> parse_config(std::string_view text, const std::string& name);

}  // namespace starattn
