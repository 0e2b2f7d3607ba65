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
#include "byte_tokenizer.h"
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

}  // namespace starattn
