// SPDX-License-Identifier: Apache-2.0
#include "tokenizer/bpe_seams.h"

#include "tokenizer/unicode.h"

namespace starattn {

BpeSeams::BpeSeams(const BpeModel& model) {
  is_whole_ = model.ignores_merges();
  const Vocabulary& vocabulary = model.vocabulary();
  for (std::size_t id = 0; id < vocabulary.size(); ++id) {
    const std::string& content = vocabulary.content(static_cast<Token>(id));
    if (!content.empty() && character_bytes(content, 0) == content.size()) {
      characters_.insert(character_at(content, 0));
    }
  }
  for (const auto& [left, right] : model.merge_pairs()) {
    is_whole_ = is_whole_ || model.is_byte_or_unknown(left) || model.is_byte_or_unknown(right);
    const std::string& before = vocabulary.content(left);
    add_join(character_at(before, character_before(before, before.size())),
             character_at(vocabulary.content(right), 0));
  }
  for (char32_t left = 0; left < 128; ++left) {
    for (char32_t right = 0; right < 128; ++right) {
      ascii_seams_[left << 7 | right] = characters_.contains(left) && characters_.contains(right) &&
                                        !joins_.contains(std::uint64_t{left} << 32 | right);
    }
  }
}

void BpeSeams::add_join(char32_t left, char32_t right) {
  joins_.insert(std::uint64_t{left} << 32 | right);
}

// Characters without a token stay with their neighbours: they may fuse into one unknown token.
bool BpeSeams::is_seam(char32_t left, char32_t right) const {
  if (left < 128 && right < 128) return ascii_seams_[left << 7 | right];
  return !joins_.contains(std::uint64_t{left} << 32 | right) && characters_.contains(left) &&
         characters_.contains(right);
}

void BpeSeams::cut(std::string_view word, FunctionRef<void(std::string_view)> part) const {
  if (word.empty()) return;
  std::size_t begin = 0;
  char32_t left = character_at(word, 0);
  for (std::size_t at = character_bytes(word, 0); !is_whole_ && at < word.size();
       at += character_bytes(word, at)) {
    const char32_t right = character_at(word, at);
    if (is_seam(left, right)) {
      part(word.substr(begin, at - begin));
      begin = at;
    }
    left = right;
  }
  part(word.substr(begin));
}

}  // namespace starattn
