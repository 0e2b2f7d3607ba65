// SPDX-License-Identifier: Apache-2.0
// tokenizer.model through libsentencepiece, for folders that have no usable tokenizer.json.
#pragma once

#include <memory>
#include <string>

#include "tokenizer/tokenizer.h"
#include "tokenizer/tokenizer_config.h"

namespace starattn {

// config: add_bos_token (true where nothing is said, as for Llama and Mistral) and added tokens.
// n_embeddings: as Tokenizer::open. Throws Error(bad_data) naming the file.
std::unique_ptr<Tokenizer> open_sentencepiece(const std::string& path,
                                              const TokenizerConfig& config,
                                              std::int64_t n_embeddings);

}  // namespace starattn
