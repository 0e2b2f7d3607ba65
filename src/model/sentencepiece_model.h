// SPDX-License-Identifier: Apache-2.0
// tokenizer.model through libsentencepiece, for folders that have no tokenizer.json.
#pragma once

#include <memory>
#include <string>

#include "model/tokenizer.h"

namespace starattn {

// config_path: tokenizer_config.json, for add_bos_token (true where the file or the key is absent).
std::unique_ptr<Tokenizer> open_sentencepiece(const std::string& path,
                                              const std::string& config_path);

}  // namespace starattn
