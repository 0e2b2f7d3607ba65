// SPDX-License-Identifier: Apache-2.0
// Tokens that stand outside BPE: they are cut out of the text first, the longest at each place.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "model/tokenizer.h"

namespace starattn {

struct AddedToken {
  Token id = 0;
  std::string content;
  bool special = false;
  bool normalized = false;   // looked for in the normalized text
  bool lstrip = false;       // takes the white space before it
  bool rstrip = false;       // and after it
  bool single_word = false;  // only where no letter or digit touches it
};

class AddedTokens {
 public:
  void add(AddedToken token);
  const std::vector<AddedToken>& all() const { return tokens_; }
  bool empty() const { return tokens_.empty(); }

  // Calls text(piece) and token(added) for what the text consists of, in order. Only tokens that
  // `wanted` accepts are looked for.
  void cut(std::string_view whole, const std::function<bool(const AddedToken&)>& wanted,
           const std::function<void(std::string_view piece)>& text,
           const std::function<void(const AddedToken&)>& token) const;

 private:
  std::vector<AddedToken> tokens_;
  std::map<unsigned char, std::vector<std::size_t>> by_first_byte_;  // longest first
};

}  // namespace starattn
