// SPDX-License-Identifier: Apache-2.0
// Stop strings in an answer as it grows: every token's text is decoded and searched once.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "tokenizer/tokenizer.h"

namespace starattn {

// Byte position of the earliest stop string, npos if there is none. Empty ones stop nothing.
std::size_t first_stop(std::span<const std::string> stops, std::string_view text);

class StopSearch {
 public:
  // What is thought, in front of the answer, is not searched (thinking.h): none is told apart;
  // there may be some; the prompt has opened it.
  enum class Thinking { none, perhaps, open };

  // Arguments must outlive the search.
  StopSearch(const Tokenizer& tokenizer, std::span<const std::string> stops,
             Thinking thinking = Thinking::none);

  // Whether the answer's next token completes a stop string.
  bool found_after(Token next);

 private:
  bool has_thought();

  const Tokenizer& tokenizer_;
  std::span<const std::string> stops_;
  Thinking thinking_;
  StreamDecoder stream_;
  std::size_t longest_ = 0;  // bytes
  std::string end_;          // of the text so far, as much as a stop string may begin in
};

}  // namespace starattn
