// SPDX-License-Identifier: Apache-2.0
// Cuts a text into the words that BPE then encodes one by one, as the "pre_tokenizer" of a
// tokenizer.json says.
#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "base/function_ref.h"
#include "base/json.h"

namespace starattn {

// A stretch on its way through the steps. opens_text: it begins where the whole text does.
struct Piece {
  std::string_view text;
  bool opens_text = false;
};
using PieceSink = FunctionRef<void(const Piece&)>;

class PreTokenizer {
 public:
  // The "pre_tokenizer" of a tokenizer.json; none leaves the text whole.
  // Throws Error(bad_data), UnsupportedTokenizer naming the type.
  explicit PreTokenizer(const JsonObject& tokenizer);
  ~PreTokenizer();

  // Hands on the words in order. One caller at a time.
  void cut(const Piece& piece, PieceSink word) const { run(0, piece, word); }

  // Words are bytes: the vocabulary writes them in the byte alphabet.
  bool is_byte_level() const { return is_byte_level_; }
  // And come in that alphabet: for steps behind ByteLevel, which see its letters.
  bool spells_bytes() const { return spells_bytes_; }

  class Step {
   public:
    virtual ~Step() = default;
    virtual void cut(const Piece& piece, PieceSink next) const = 0;
  };

 private:
  void add(const JsonObject& json);
  void run(std::size_t step, const Piece& piece, PieceSink word) const;

  std::vector<std::unique_ptr<const Step>> steps_;
  bool is_byte_level_ = false;
  bool spells_bytes_ = false;
};

}  // namespace starattn
