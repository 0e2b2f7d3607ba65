// SPDX-License-Identifier: Apache-2.0
// Tokens that stand outside BPE (markup mostly): they are cut out of the text first, the longest at
// each place.
#pragma once

#include <bitset>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/function_ref.h"
#include "base/json.h"
#include "tokenizer/tokenizer.h"

namespace starattn {

struct AddedToken {
  Token id = 0;
  std::string content;
  bool special = false;      // markup: not recognised in text that must stay text
  bool normalized = false;   // looked for in the normalized text
  bool lstrip = false;       // takes the white space before it
  bool rstrip = false;       // and after it
  bool single_word = false;  // only where no letter or digit touches it

  static AddedToken read(const JsonObject& json);
};

// Leaves out tokens that the model has no embedding for, and says so. where: their file.
void drop_beyond(std::int64_t n_embeddings, std::vector<AddedToken>& tokens,
                 const std::string& where);

class AddedTokens {
 public:
  // spelling: what to look for (the content, normalized where the token says so).
  // Of two with the same spelling the first one counts.
  void add(const AddedToken& token, std::string_view spelling);
  void add(const AddedToken& token) { add(token, token.content); }

  // Hands on what the text consists of, in order: stretches of text, and tokens.
  // With SpecialTokens::text special tokens are stepped over and stay text.
  void cut(std::string_view whole, SpecialTokens special, FunctionRef<void(std::string_view)> text,
           FunctionRef<void(const AddedToken&)> token) const;

 private:
  // The longest spelling that the text has at `at`: its token and end; nullptr when there is none.
  const AddedToken* longest_at(std::string_view text, std::size_t at, std::size_t& end) const;

  std::vector<AddedToken> tokens_;
  // A tree of spellings: (node << 8 | byte) -> node; node 0 is the root.
  std::unordered_map<std::uint64_t, std::uint32_t> children_;
  std::vector<std::int32_t> token_of_node_ = {-1};  // index into tokens_
  std::bitset<256> first_bytes_;
};

}  // namespace starattn
