// SPDX-License-Identifier: Apache-2.0
#include "tokenizer/pretokenizer.h"

#include <string>

#include "base/error.h"
#include "tokenizer/byte_level.h"
#include "tokenizer/split.h"
#include "tokenizer/unicode.h"
#include "tokenizer/unsupported.h"

namespace starattn {
namespace {

constexpr std::size_t kMaxSteps = 64;

// For a ByteLevel step that cuts by itself, as GPT-2 does.
constexpr const char* kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

constexpr const char* kPunctuation = R"([!-/:-@\[-`{-~\p{P}])";

class SplitStep : public PreTokenizer::Step {
 public:
  explicit SplitStep(Splitter splitter) : splitter_(std::move(splitter)) {}
  void cut(const Piece& piece, PieceSink next) const override {
    splitter_(piece.text, [&](std::string_view part) {
      next({part, piece.opens_text && part.data() == piece.text.data()});
    });
  }

 private:
  Splitter splitter_;
};

// " word" for "word".
class PrefixSpaceStep : public PreTokenizer::Step {
 public:
  void cut(const Piece& piece, PieceSink next) const override {
    if (piece.text.starts_with(' ')) return next(piece);
    const std::string text = std::string(1, ' ').append(piece.text);
    next({text, piece.opens_text});
  }
};

class ByteAlphabetStep : public PreTokenizer::Step {
 public:
  void cut(const Piece& piece, PieceSink next) const override {
    const std::string text = to_byte_alphabet(piece.text);
    next({text, piece.opens_text});
  }
};

enum class Prepend { always, first, never };  // first: only where the whole text begins

// Spaces become ▁, one ▁ more goes in front, and each ▁ begins a word.
class MetaspaceStep : public PreTokenizer::Step {
 public:
  MetaspaceStep(const std::string& mark, Prepend prepend, bool cuts, const std::string& where)
      : mark_(mark),
        prepend_(prepend),
        cuts_(cuts),
        splitter_(Pattern::literal(mark, where), SplitBehavior::merged_with_next) {}

  void cut(const Piece& piece, PieceSink next) const override {
    std::string text;
    text.reserve(piece.text.size() * 5 / 4 + mark_.size());
    const bool prepends =
        prepend_ == Prepend::always || (prepend_ == Prepend::first && piece.opens_text);
    if (prepends && !piece.text.starts_with(' ') && !piece.text.starts_with(mark_)) text = mark_;
    for (const char c : piece.text) {
      if (c == ' ') {
        text += mark_;
      } else {
        text += c;
      }
    }
    if (!cuts_) return next({text, piece.opens_text});
    splitter_(text, [&](std::string_view part) {
      next({part, piece.opens_text && part.data() == text.data()});
    });
  }

 private:
  std::string mark_;
  Prepend prepend_;
  bool cuts_;
  Splitter splitter_;
};

std::unique_ptr<const PreTokenizer::Step> read_metaspace(const JsonObject& json) {
  const std::string mark = json.find_string("replacement").value_or(std::string(kMetaspace));
  if (mark.empty() || character_bytes(mark, 0) != mark.size()) {
    fail(Exit::bad_data, "{}: replacement: expected one character, got '{}'", json.where(), mark);
  }
  // Older files say add_prefix_space instead.
  const bool adds = json.find_bool("add_prefix_space").value_or(true);
  const std::string scheme = json.find_string("prepend_scheme").value_or(adds ? "always" : "never");
  const auto prepend = scheme == "always"  ? Prepend::always
                       : scheme == "first" ? Prepend::first
                                           : Prepend::never;
  if (prepend == Prepend::never && scheme != "never") {
    unsupported(json.where(), "prepend_scheme '" + scheme + "'", "always, first and never are");
  }
  return std::make_unique<MetaspaceStep>(mark, prepend, json.find_bool("split").value_or(true),
                                         json.where());
}

std::unique_ptr<const PreTokenizer::Step> split_step(const JsonObject& json,
                                                     const std::string& expression,
                                                     SplitBehavior behavior) {
  return std::make_unique<SplitStep>(Splitter(Pattern::regex(expression, json.where()), behavior));
}

}  // namespace

PreTokenizer::PreTokenizer(const JsonObject& tokenizer) {
  if (tokenizer.has("pre_tokenizer")) add(tokenizer.get_object("pre_tokenizer"));
}

PreTokenizer::~PreTokenizer() = default;

void PreTokenizer::add(const JsonObject& json) {
  const std::string type = json.get_string("type");
  if (is_byte_level_ && type == "ByteLevel")
    unsupported(json.where(), "pre-tokenizer 'ByteLevel' behind another one", "one is");
  if (is_byte_level_ && !spells_bytes_) {
    spells_bytes_ = true;
    steps_.push_back(std::make_unique<ByteAlphabetStep>());
  }
  if (steps_.size() >= kMaxSteps) {
    fail(Exit::bad_data, "{}: more than {} pre-tokenizers", json.where(), kMaxSteps);
  }
  if (type == "Sequence") {
    for (const Json& step : json.get("pretokenizers")) add({step, json.where()});
  } else if (type == "Split") {
    const auto behavior = split_behavior_from_name(json.get_string("behavior"), json.where());
    steps_.push_back(std::make_unique<SplitStep>(Splitter(
        Pattern::read(json, "pattern"), behavior, json.find_bool("invert").value_or(false))));
  } else if (type == "ByteLevel") {
    is_byte_level_ = true;
    if (json.find_bool("add_prefix_space").value_or(true)) {
      steps_.push_back(std::make_unique<PrefixSpaceStep>());
    }
    if (json.find_bool("use_regex").value_or(true)) {
      steps_.push_back(split_step(json, kGpt2Pattern, SplitBehavior::isolated));
    }
  } else if (type == "Digits") {
    const bool each = json.find_bool("individual_digits").value_or(false);
    steps_.push_back(
        split_step(json, R"(\p{N})", each ? SplitBehavior::isolated : SplitBehavior::contiguous));
  } else if (type == "Punctuation") {
    const std::string behavior = json.find_string("behavior").value_or("Isolated");
    steps_.push_back(
        split_step(json, kPunctuation, split_behavior_from_name(behavior, json.where())));
  } else if (type == "Metaspace") {
    steps_.push_back(read_metaspace(json));
  } else {
    unsupported(json.where(), "pre-tokenizer '" + type + "'",
                "Split, ByteLevel, Digits, Punctuation, Metaspace and Sequence are");
  }
}

// Depth first: a piece goes through all steps before the next one is cut, so only one is in memory.
void PreTokenizer::run(std::size_t step, const Piece& piece, PieceSink word) const {
  if (piece.text.empty()) return;
  if (step == steps_.size()) return word(piece);
  steps_[step]->cut(piece, [&](const Piece& part) { run(step + 1, part, word); });
}

}  // namespace starattn
