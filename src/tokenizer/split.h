// SPDX-License-Identifier: Apache-2.0
// Cutting a text at the matches of a pattern, and what becomes of the matches.
#pragma once

#include <string_view>

#include "base/function_ref.h"
#include "tokenizer/pattern.h"

namespace starattn {

enum class SplitBehavior {
  isolated,              // each match is a piece
  removed,               // matches are dropped
  merged_with_previous,  // a match ends the piece in front of it
  merged_with_next,      // a match begins the piece behind it
  contiguous,            // matches side by side are one piece
};
SplitBehavior split_behavior_from_name(const std::string& name, const std::string& where);

// invert: what lies between the matches counts as matches, and the other way round.
class Splitter {
 public:
  Splitter(Pattern pattern, SplitBehavior behavior, bool invert = false)
      : pattern_(std::move(pattern)), behavior_(behavior), invert_(invert) {}

  // Hands on the pieces in order, none of them empty.
  void operator()(std::string_view text, FunctionRef<void(std::string_view)> piece) const;

 private:
  Pattern pattern_;
  SplitBehavior behavior_;
  bool invert_;
};

}  // namespace starattn
