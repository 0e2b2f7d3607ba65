// SPDX-License-Identifier: Apache-2.0
// The tokens in front of every text (BOS), as the "post_processor" of a tokenizer.json says.
#pragma once

#include <vector>

#include "base/function_ref.h"
#include "base/json.h"
#include "base/next_token.h"

namespace starattn {

// What stands in front of the text in the template of a single sequence.
// knows: whether there is a token of this id.
// Throws Error(bad_data), UnsupportedTokenizer naming the type.
std::vector<Token> read_prefix(const JsonObject& tokenizer, FunctionRef<bool(Token)> knows);

}  // namespace starattn
