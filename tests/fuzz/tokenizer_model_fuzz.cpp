// SPDX-License-Identifier: Apache-2.0
// tokenizer.model, which libsentencepiece reads.
#include "fuzz.h"
#include "tokenizer/tokenizer.h"

using namespace starattn;

STARATTN_FUZZ_TARGET {
  static const fuzz::Folder folder;
  folder.write("tokenizer.model", input);
  fuzz::only_refuses([&] {
    const auto tokenizer = Tokenizer::open(folder.path());
    const std::vector<Token> tokens = tokenizer->encode("a b\xc3\xa9 12\nthe", SpecialTokens::text);
    tokenizer->decode(tokens, true);
    for (Token token = -1; token < 300; ++token) tokenizer->bytes_of(token);
  });
}
