// SPDX-License-Identifier: Apache-2.0
// A tokenizer.json in which every byte is a token.
#pragma once

#include <string>
#include <vector>

#include "base/json.h"

namespace starattn {

// Every byte a token with the byte's value for its id, and markup behind them.
inline Json byte_tokenizer(const std::vector<std::string>& special_tokens) {
  Json tokenizer = Json::parse(R"({
    "model": {"type": "BPE", "vocab": {}, "merges": []},
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "use_regex": false},
    "decoder": {"type": "ByteLevel"}, "added_tokens": []})");
  int next = 256;
  for (int byte = 0; byte < 256; ++byte) {
    const bool is_printable =
        (byte >= 33 && byte < 127) || byte == 161 || byte == 162 || (byte > 162 && byte != 173);
    const int letter = is_printable ? byte : next++;
    std::string text(1, static_cast<char>(letter));
    if (letter >= 0x80) {
      text = {static_cast<char>(0xc0 | letter >> 6), static_cast<char>(0x80 | (letter & 0x3f))};
    }
    tokenizer["model"]["vocab"][text] = byte;
  }
  int id = 256;
  for (const std::string& content : special_tokens) {
    tokenizer["added_tokens"].push_back(
        {{"id", id++}, {"content", content}, {"special", true}, {"normalized", false}});
  }
  return tokenizer;
}

}  // namespace starattn
