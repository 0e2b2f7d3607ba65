// SPDX-License-Identifier: Apache-2.0
// Any text through three real tokenizers: byte-level BPE, BPE with byte fallback, SentencePiece.
// The first gives back what went in; all give the same tokens twice (the second time from their
// caches).
#include <array>

#include "fuzz.h"
#include "tokenizer/tokenizer.h"

using namespace starattn;

STARATTN_FUZZ_TARGET {
  static const std::string golden = STARATTN_SOURCE_DIR "/tests/golden/tokenizer/";
  static const fuzz::Folder folder;  // for its silence
  static const std::array tokenizers{Tokenizer::open(STARATTN_SOURCE_DIR "/data/demo-model"),
                                     Tokenizer::open(golden + "llama2"),
                                     Tokenizer::open(golden + "sentencepiece")};
  for (const auto& tokenizer : tokenizers) {
    for (const SpecialTokens special : {SpecialTokens::text, SpecialTokens::parse}) {
      fuzz::only_refuses([&] {
        const std::vector<Token> tokens = tokenizer->encode(input, special);
        fuzz::require(tokens == tokenizer->encode(input, special),
                      "a text has one sequence of tokens");
        const std::string text = tokenizer->decode(tokens, false);
        fuzz::require(is_utf8(text), "a decoded text is UTF-8");
        if (tokenizer == tokenizers[0])
          fuzz::require(text == input, "a byte-level tokenizer loses nothing");
        StreamDecoder decoder(*tokenizer);
        std::string stream;
        for (const Token token : tokens) stream += decoder.push(token);
        stream += decoder.finish();
        fuzz::require(stream == tokenizer->decode(tokens, true),
                      "streamed text is the decoded text");
      });
    }
  }
}
