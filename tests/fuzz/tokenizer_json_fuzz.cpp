// SPDX-License-Identifier: Apache-2.0
// tokenizer.json: a tokenizer that is accepted works, on a text with a bit of everything.
#include "fuzz.h"
#include "tokenizer/tokenizer.h"

using namespace starattn;

STARATTN_FUZZ_TARGET {
  static const fuzz::Folder folder;
  folder.write("tokenizer.json", input);
  fuzz::only_refuses([&] {
    const auto tokenizer = Tokenizer::open(folder.path());
    const std::vector<Token> tokens =
        tokenizer->encode("a bb\xc3\xa9 12\n<|end|> \xe2\x96\x81the", SpecialTokens::parse);
    tokenizer->decode(tokens, false);
    for (Token token = -1; token < 300; ++token) tokenizer->bytes_of(token);
  });
}
