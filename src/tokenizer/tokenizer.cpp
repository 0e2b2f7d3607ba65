// SPDX-License-Identifier: Apache-2.0
#include "tokenizer/tokenizer.h"

#include <unistd.h>

#include "base/error.h"
#include "base/log.h"
#include "tokenizer/sentencepiece_model.h"
#include "tokenizer/tokenizer_config.h"
#include "tokenizer/tokenizer_json.h"
#include "tokenizer/unicode.h"
#include "tokenizer/unsupported.h"

namespace starattn {
namespace {

constexpr JsonLimits kLimits{std::size_t{256} << 20, 32};

bool exists(const std::string& path) {
  return ::access(path.c_str(), F_OK) == 0;
}

}  // namespace

std::unique_ptr<Tokenizer> Tokenizer::open(const std::string& folder, std::int64_t n_embeddings) {
  const std::string json = folder + "/tokenizer.json";
  const std::string model = folder + "/tokenizer.model";
  if (!exists(json) && !exists(model) && exists(folder + "/tekken.json")) {
    fail(Exit::no_input,
         "{}: tekken.json is Mistral's own form of a tokenizer, which is not read. Take "
         "tokenizer.json from the model's folder in the format of Hugging Face",
         folder);
  }
  if (!exists(json) && !exists(model)) {
    fail(Exit::no_input,
         "{}: neither tokenizer.json nor tokenizer.model is there. A folder with only vocab.json "
         "and merges.txt needs its tokenizer.json, which `transformers` writes with "
         "save_pretrained",
         folder);
  }
  const TokenizerConfig config = read_tokenizer_config(folder);
  if (exists(json)) {
    try {
      return std::make_unique<TokenizerJson>(read_json_file(json, kLimits), json, config,
                                             n_embeddings);
    } catch (const UnsupportedTokenizer& error) {
      if (!exists(model)) throw;
      log::warn("{}; using {} instead", error.what(), model);
    }
  }
  return open_sentencepiece(model, config, n_embeddings);
}

std::string Tokenizer::decode(const std::vector<Token>& tokens, bool skip_special) const {
  std::string bytes;
  bool is_opening = true;
  for (const Token token : tokens) {
    if (skip_special && is_special(token)) continue;
    bytes += is_opening ? opening_bytes_of(token) : bytes_of(token);
    is_opening = false;
  }
  return to_valid_utf8(bytes);
}

std::string StreamDecoder::push(Token token) {
  if (tokenizer_->is_special(token)) return "";
  pending_ += is_opening_ ? tokenizer_->opening_bytes_of(token) : tokenizer_->bytes_of(token);
  is_opening_ = false;

  std::string_view rest = pending_;
  std::string complete;
  while (!rest.empty()) {
    const Utf8Unit unit = first_unit(rest);
    if (unit.kind == Utf8::incomplete) break;
    complete += unit.kind == Utf8::character ? rest.substr(0, unit.n_bytes) : kReplacementCharacter;
    rest.remove_prefix(unit.n_bytes);
  }
  pending_ = std::string(rest);
  return complete;
}

std::string StreamDecoder::finish() {
  std::string rest = to_valid_utf8(pending_);
  pending_.clear();
  return rest;
}

}  // namespace starattn
