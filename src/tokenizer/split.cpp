// SPDX-License-Identifier: Apache-2.0
#include "tokenizer/split.h"

#include "tokenizer/unsupported.h"

namespace starattn {
namespace {

// A stretch of the text, a match or what lies between two.
struct Stretch {
  std::size_t begin = 0;
  std::size_t end = 0;
  bool is_match = false;
};

// Joins stretches into pieces as they come. Holds back one piece, which may still grow.
class Joiner {
 public:
  Joiner(std::string_view text, SplitBehavior behavior, FunctionRef<void(std::string_view)> piece)
      : text_(text), behavior_(behavior), piece_(piece) {}

  void add(const Stretch& stretch) {
    if (has_held_ && joins_held(stretch)) {
      held_.end = stretch.end;
    } else {
      flush();
      held_ = stretch;
      has_held_ = true;
    }
    held_.is_match = stretch.is_match;
  }

  void flush() {
    const bool is_dropped = behavior_ == SplitBehavior::removed && held_.is_match;
    if (has_held_ && !is_dropped && held_.end > held_.begin) {
      piece_(text_.substr(held_.begin, held_.end - held_.begin));
    }
    has_held_ = false;
  }

 private:
  // held_.is_match is that of the last stretch in it.
  bool joins_held(const Stretch& next) const {
    switch (behavior_) {
      case SplitBehavior::merged_with_previous:
        return next.is_match && !held_.is_match;
      case SplitBehavior::merged_with_next:
        return !next.is_match && held_.is_match;
      case SplitBehavior::contiguous:
        return next.is_match == held_.is_match;
      default:
        return false;
    }
  }

  std::string_view text_;
  SplitBehavior behavior_;
  FunctionRef<void(std::string_view)> piece_;
  Stretch held_;
  bool has_held_ = false;
};

}  // namespace

SplitBehavior split_behavior_from_name(const std::string& name, const std::string& where) {
  if (name == "Isolated") return SplitBehavior::isolated;
  if (name == "Removed") return SplitBehavior::removed;
  if (name == "MergedWithPrevious") return SplitBehavior::merged_with_previous;
  if (name == "MergedWithNext") return SplitBehavior::merged_with_next;
  if (name == "Contiguous") return SplitBehavior::contiguous;
  unsupported(where, "behavior '" + name + "'",
              "Isolated, Removed, MergedWithPrevious, MergedWithNext and Contiguous are");
}

void Splitter::operator()(std::string_view text, FunctionRef<void(std::string_view)> piece) const {
  Joiner joiner(text, behavior_, piece);
  std::size_t done = 0;
  pattern_.each_match(text, [&](std::size_t begin, std::size_t end) {
    if (begin > done) joiner.add({done, begin, invert_});
    joiner.add({begin, end, !invert_});
    done = end;
  });
  if (done < text.size()) joiner.add({done, text.size(), invert_});
  joiner.flush();
}

}  // namespace starattn
