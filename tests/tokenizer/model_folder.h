// SPDX-License-Identifier: Apache-2.0
// A temporary model folder with the files that a test gives it, and small tokenizers to put there.
#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>

#include "base/error.h"
#include "base/json.h"
#include "tokenizer/tokenizer.h"

namespace starattn {

class ModelFolder {
 public:
  ModelFolder() {
    std::string path = std::filesystem::temp_directory_path() / "starattn-tokenizer-XXXXXX";
    if (!::mkdtemp(path.data())) fail(Exit::cannot_create, "{}: no temporary folder", path);
    path_ = path;
  }
  ~ModelFolder() { std::filesystem::remove_all(path_); }
  ModelFolder(const ModelFolder&) = delete;
  ModelFolder& operator=(const ModelFolder&) = delete;

  const std::string& path() const { return path_; }
  void write(const std::string& name, const std::string& bytes) const {
    std::ofstream(path_ + "/" + name, std::ios::binary) << bytes;
  }
  void write(const std::string& name, const Json& json) const { write(name, to_line(json)); }
  std::unique_ptr<Tokenizer> open() const { return Tokenizer::open(path_); }

 private:
  std::string path_;
};

inline std::unique_ptr<Tokenizer> open_tokenizer(const Json& tokenizer) {
  ModelFolder folder;
  folder.write("tokenizer.json", tokenizer);
  return folder.open();
}

// What an action fails with; empty when it does not.
template <typename Action>
std::string failure_of(Action action, Exit expected = Exit::bad_data) {
  try {
    action();
  } catch (const Error& error) {
    EXPECT_EQ(error.exit(), expected) << error.what();
    return error.what();
  }
  return "";
}

// a, b, c and ▁ with two merges; no bytes, no unknown token.
inline Json tiny_tokenizer() {
  return Json::parse(R"({
    "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "c": 2, "ab": 3, "abc": 4, "▁": 5},
              "merges": ["a b", "ab c"]},
    "decoder": {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}})");
}

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
