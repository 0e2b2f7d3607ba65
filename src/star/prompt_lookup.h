// SPDX-License-Identifier: Apache-2.0
// Drafts of an answer's next tokens from what the document and the query say themselves (prompt
// lookup decoding, github.com/apoorvumang/prompt-lookup-decoding): where the last few tokens have
// stood before, the answer may go on as it went on there. A step that checks a draft reads weights
// and keys once for all its tokens.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/next_token.h"

namespace starattn {

// Places of all runs of kLength tokens. 12 to 20 bytes a token.
class NgramIndex {
 public:
  static constexpr std::size_t kLength = 3;
  static constexpr std::size_t kLongest = 32;  // tokens that are compared

  // At most 2^32 - 2 tokens, which outlive the index.
  explicit NgramIndex(std::span<const Token> tokens);

  // What stands behind the place that is most like the end of `text`: it shares the last kLength
  // tokens and as many more before them as possible; of equals the last. Empty where there is none.
  // Places before the last kMostPlaces with the same kLength tokens are not looked at.
  std::span<const Token> continuation(std::span<const Token> text) const;

 private:
  static constexpr int kMostPlaces = 64;

  std::size_t slot_of(const Token* run) const;

  std::span<const Token> tokens_;
  int shift_ = 0;                      // of a hash, to a slot
  std::vector<std::uint32_t> last_;    // by slot: 1 + the last place of a run that belongs there
  std::vector<std::uint32_t> before_;  // by place: 1 + the place before it in the same slot
};

// How many tokens of a query's draft are worth a try, by what became of those before: twice as many
// behind one that came true, as many as came true behind one that failed, and behind one that
// failed at its first token none for some steps, more of them each time.
class DraftLength {
 public:
  // is_fixed: always `most`.
  DraftLength(std::int64_t most, bool is_fixed) : most_(most), is_fixed_(is_fixed), next_(most) {}

  std::int64_t next() const { return n_pause_ > 0 ? 0 : next_; }
  // Of a step: n_true of n_tried came true.
  void learn(std::int64_t n_tried, std::int64_t n_true);

 private:
  static constexpr std::int64_t kLongestPause = 16;

  std::int64_t most_ = 0;
  bool is_fixed_ = true;
  std::int64_t next_ = 0;
  std::int64_t n_pause_ = 0;     // steps still to come without a draft
  std::int64_t last_pause_ = 0;  // 0: the draft before did not fail at once
};

class PromptLookup {
 public:
  // The context outlives this.
  explicit PromptLookup(std::span<const Token> context) : index_(context) {}

  // At most n_most tokens that may come behind the query's and its answer's so far: as their own
  // end went on before, or else as the document does.
  std::vector<Token> draft(std::span<const Token> query, std::span<const Token> answer,
                           std::int64_t n_most) const;

 private:
  NgramIndex index_;
};

}  // namespace starattn
