// SPDX-License-Identifier: Apache-2.0
#include "model/tokenizer.h"

#include <unistd.h>

#include "base/error.h"
#include "base/json.h"
#include "base/text.h"
#include "model/sentencepiece_model.h"
#include "model/tokenizer_json.h"

namespace starattn {
namespace {

constexpr const char* kReplacement = "\xef\xbf\xbd";  // U+FFFD

// Bytes at the end that may still become a character: a lead byte with too few of its followers.
std::size_t incomplete_tail(std::string_view bytes) {
  for (std::size_t back = 1; back <= 3 && back <= bytes.size(); ++back) {
    const auto byte = static_cast<unsigned char>(bytes[bytes.size() - back]);
    if ((byte & 0xc0U) == 0x80U) continue;
    const std::size_t needs = byte >= 0xf0 && byte <= 0xf4 ? 4
                              : byte >= 0xe0               ? 3
                              : byte >= 0xc2               ? 2
                                                           : 1;
    return byte <= 0xf4 && needs > back ? back : 0;
  }
  return 0;
}

}  // namespace

std::unique_ptr<Tokenizer> Tokenizer::open(const std::string& folder) {
  const std::string json = folder + "/tokenizer.json";
  const std::string model = folder + "/tokenizer.model";
  if (::access(json.c_str(), F_OK) == 0) return std::make_unique<TokenizerJson>(json);
  if (::access(model.c_str(), F_OK) == 0)
    return open_sentencepiece(model, folder + "/tokenizer_config.json");
  fail(Exit::no_input, "{}: neither tokenizer.json nor tokenizer.model is there", folder);
}

std::string to_valid_utf8(std::string_view bytes) {
  std::string text;
  std::size_t bad = 0;
  while (!is_utf8(bytes, &bad)) {
    text.append(bytes.substr(0, bad)).append(kReplacement);
    bytes.remove_prefix(bad);
    // The broken part: a lead byte with the followers it could have had, else one byte.
    std::size_t n = 1;
    while (n < bytes.size() && n < 4 && incomplete_tail(bytes.substr(0, n)) == n &&
           incomplete_tail(bytes.substr(0, n + 1)) == n + 1) {
      ++n;
    }
    bytes.remove_prefix(n);
  }
  return text.append(bytes);
}

std::string StreamDecoder::push(Token token) {
  if (!tokenizer_->is_special(token)) pending_ += tokenizer_->bytes_of(token);
  return take(false);
}

std::string StreamDecoder::finish() {
  return take(true);
}

std::string StreamDecoder::take(bool is_end) {
  const std::size_t keep = is_end ? 0 : incomplete_tail(pending_);
  std::string ready = pending_.substr(0, pending_.size() - keep);
  pending_.erase(0, ready.size());
  if (at_start_ && !ready.empty()) {
    at_start_ = false;
    if (tokenizer_->strips_first_space() && ready.front() == ' ') ready.erase(0, 1);
  }
  return to_valid_utf8(ready);
}

}  // namespace starattn
