// SPDX-License-Identifier: Apache-2.0
// A temporary model folder with the files that a test gives it, and small tokenizers to put there.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "../temporary_folder.h"
#include "base/error.h"
#include "base/json.h"
#include "byte_tokenizer.h"
#include "tokenizer/tokenizer.h"

namespace starattn {

class ModelFolder {
 public:
  const std::string& path() const { return folder_.path(); }
  void write(const std::string& name, const std::string& bytes) const {
    folder_.write(name, bytes);
  }
  void write(const std::string& name, const Json& json) const { write(name, to_line(json)); }
  std::unique_ptr<Tokenizer> open() const { return Tokenizer::open(path()); }

 private:
  TemporaryFolder folder_;
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
