// SPDX-License-Identifier: Apache-2.0
#define PCRE2_CODE_UNIT_WIDTH 8
#include "model/pretokenizer.h"

#include <pcre2.h>
#include <utf8proc.h>

#include "base/error.h"

namespace starattn {
namespace {

// GPT-2's own pattern, for a ByteLevel step that asks for it.
constexpr const char* kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
constexpr const char* kMetaspace = "\xe2\x96\x81";  // ▁

void replace_all(std::string& text, const Pattern& pattern, const std::string& by) {
  std::string result;
  std::size_t last = 0;
  pattern.each_match(text, [&](std::size_t begin, std::size_t end) {
    result.append(text, last, begin - last).append(by);
    last = end;
  });
  if (last == 0) return;
  text = result.append(text, last);
}

std::string nfc(std::string text, utf8proc_option_t form) {
  bool is_ascii = true;
  for (const char c : text) is_ascii &= static_cast<unsigned char>(c) < 0x80;
  if (is_ascii) return text;
  utf8proc_uint8_t* mapped = nullptr;
  const utf8proc_ssize_t n = utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                                          static_cast<utf8proc_ssize_t>(text.size()), &mapped,
                                          static_cast<utf8proc_option_t>(UTF8PROC_STABLE | form));
  if (n < 0) fail(Exit::bad_data, "Unicode normalization failed: {}", utf8proc_errmsg(n));
  text.assign(reinterpret_cast<const char*>(mapped), static_cast<std::size_t>(n));
  std::free(mapped);
  return text;
}

void add_normalizer(const JsonObject& json, std::vector<Normalizer>& steps) {
  const std::string type = json.get_string("type");
  if (type == "Sequence") {
    for (const Json& step : json.get("normalizers")) add_normalizer({step, json.where()}, steps);
  } else if (type == "NFC") {
    steps.push_back([](std::string text) { return nfc(std::move(text), UTF8PROC_COMPOSE); });
  } else if (type == "NFKC") {
    steps.push_back([](std::string text) {
      return nfc(std::move(text),
                 static_cast<utf8proc_option_t>(UTF8PROC_COMPOSE | UTF8PROC_COMPAT));
    });
  } else if (type == "Prepend") {
    steps.push_back([prefix = json.get_string("prepend")](std::string text) {
      return text.empty() ? text : prefix + text;
    });
  } else if (type == "Replace") {
    steps.push_back([pattern = read_pattern(json, "pattern"),
                     by = json.get_string("content")](std::string text) {
      replace_all(text, pattern, by);
      return text;
    });
  } else {
    fail(Exit::bad_data,
         "{}: normalizer '{}' is not supported (NFC, NFKC, Prepend, Replace and Sequence are)",
         json.where(), type);
  }
}

// Cuts at the matches; `behavior` says what becomes of them.
Words split(const std::string& word, const Pattern& pattern, const std::string& behavior,
            bool invert) {
  struct Piece {
    std::size_t begin, end;
    bool is_match;
  };
  std::vector<Piece> pieces;
  std::size_t last = 0;
  pattern.each_match(word, [&](std::size_t begin, std::size_t end) {
    if (begin > last) pieces.push_back({last, begin, invert});
    pieces.push_back({begin, end, !invert});
    last = end;
  });
  if (last < word.size()) pieces.push_back({last, word.size(), invert});

  std::vector<Piece> words;
  bool glue_next = false;
  for (const Piece& piece : pieces) {
    const bool after_match = !words.empty() && words.back().is_match;
    const bool adjacent = !words.empty() && words.back().end == piece.begin;
    if (behavior == "Removed") {
      if (!piece.is_match) words.push_back(piece);
    } else if (behavior == "MergedWithPrevious" && piece.is_match && adjacent && !after_match) {
      words.back() = {words.back().begin, piece.end, true};
    } else if (behavior == "MergedWithNext" && glue_next && !piece.is_match) {
      words.back() = {words.back().begin, piece.end, false};
    } else if (behavior == "Contiguous" && adjacent && after_match == piece.is_match) {
      words.back().end = piece.end;
    } else {
      words.push_back(piece);
    }
    glue_next = piece.is_match;
  }
  Words result;
  result.reserve(words.size());
  for (const Piece& piece : words)
    result.push_back(word.substr(piece.begin, piece.end - piece.begin));
  return result;
}

void add_split(PreTokenizers& all, Pattern pattern, const std::string& behavior, bool invert) {
  all.steps.push_back(
      [pattern = std::move(pattern), behavior, invert](const std::string& word, bool) {
        return split(word, pattern, behavior, invert);
      });
}

void add_metaspace(const JsonObject& json, PreTokenizers& all) {
  const std::string mark = json.find_string("replacement").value_or(kMetaspace);
  std::string scheme = json.find_string("prepend_scheme").value_or("always");
  if (!json.find_bool("add_prefix_space").value_or(true)) scheme = "never";
  const bool cuts = json.find_bool("split").value_or(true);
  all.steps.push_back([mark, scheme, cuts](std::string word, bool is_first) {
    replace_all(word, Pattern::literal(" "), mark);
    const bool prepend = scheme == "always" || (scheme == "first" && is_first);
    if (prepend && !word.starts_with(mark)) word.insert(0, mark);
    return cuts ? split(word, Pattern::literal(mark), "MergedWithNext", false) : Words{word};
  });
}

void add_pre_tokenizer(const JsonObject& json, PreTokenizers& all) {
  const std::string type = json.get_string("type");
  if (type == "Sequence") {
    for (const Json& step : json.get("pretokenizers")) add_pre_tokenizer({step, json.where()}, all);
  } else if (type == "Split") {
    const std::string behavior = json.get_string("behavior");
    if (behavior != "Isolated" && behavior != "Removed" && behavior != "MergedWithPrevious" &&
        behavior != "MergedWithNext" && behavior != "Contiguous") {
      fail(Exit::bad_data, "{}: Split behavior '{}' is not known", json.where(), behavior);
    }
    add_split(all, read_pattern(json, "pattern"), behavior,
              json.find_bool("invert").value_or(false));
  } else if (type == "ByteLevel") {
    all.byte_level = true;
    if (json.find_bool("add_prefix_space").value_or(true)) {
      all.steps.push_back(
          [](std::string word, bool) { return Words{word.starts_with(' ') ? word : " " + word}; });
    }
    if (json.find_bool("use_regex").value_or(true)) {
      add_split(all, Pattern::regex(kGpt2Pattern, json.where()), "Isolated", false);
    }
  } else if (type == "Digits") {
    const bool single = json.find_bool("individual_digits").value_or(false);
    add_split(all, Pattern::regex(R"(\p{N})", json.where()), single ? "Isolated" : "Contiguous",
              false);
  } else if (type == "Metaspace") {
    add_metaspace(json, all);
  } else {
    fail(Exit::bad_data,
         "{}: pre-tokenizer '{}' is not supported (Split, ByteLevel, Digits, Metaspace and "
         "Sequence are)",
         json.where(), type);
  }
}

}  // namespace

Pattern Pattern::regex(const std::string& expression, const std::string& where) {
  int error = 0;
  PCRE2_SIZE offset = 0;
  pcre2_code* code =
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(expression.data()), expression.size(),
                    PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &error, &offset, nullptr);
  if (!code) {
    PCRE2_UCHAR text[256] = {};
    pcre2_get_error_message(error, text, sizeof(text));
    fail(Exit::bad_data, "{}: pattern '{}' at byte {}: {}", where, expression, offset,
         reinterpret_cast<char*>(text));
  }
  pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);  // without JIT it is only slower
  Pattern pattern;
  pattern.code_ =
      std::shared_ptr<void>(code, [](void* c) { pcre2_code_free(static_cast<pcre2_code*>(c)); });
  return pattern;
}

Pattern Pattern::literal(const std::string& text) {
  STARATTN_CHECK(!text.empty());
  Pattern pattern;
  pattern.literal_ = text;
  return pattern;
}

void Pattern::each_match(std::string_view text,
                         const std::function<void(std::size_t, std::size_t)>& found) const {
  if (!code_) {
    for (std::size_t at = text.find(literal_); at != std::string_view::npos;
         at = text.find(literal_, at)) {
      found(at, at + literal_.size());
      at += literal_.size();
    }
    return;
  }
  const auto* code = static_cast<const pcre2_code*>(code_.get());
  const std::unique_ptr<pcre2_match_data, void (*)(pcre2_match_data*)> data(
      pcre2_match_data_create_from_pattern(code, nullptr), pcre2_match_data_free);
  std::size_t at = 0;
  while (at < text.size()) {
    const int status = pcre2_match(code, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), at,
                                   PCRE2_NO_UTF_CHECK, data.get(), nullptr);
    if (status == PCRE2_ERROR_NOMATCH) return;
    if (status < 0) {
      PCRE2_UCHAR message[256] = {};
      pcre2_get_error_message(status, message, sizeof(message));
      fail(Exit::bad_data,
           "the tokenizer's pattern gave up at byte {} of {}: {}. Is one word megabytes long?", at,
           text.size(), reinterpret_cast<char*>(message));
    }
    const PCRE2_SIZE* range = pcre2_get_ovector_pointer(data.get());
    if (range[1] > range[0]) {
      found(range[0], range[1]);
      at = range[1];
    } else {  // an empty match: go on behind the next character
      do ++at;
      while (at < text.size() && (static_cast<unsigned char>(text[at]) & 0xc0U) == 0x80U);
    }
  }
}

Pattern read_pattern(const JsonObject& json, const char* key) {
  const JsonObject pattern = json.get_object(key);
  if (pattern.has("Regex")) return Pattern::regex(pattern.get_string("Regex"), pattern.where());
  const std::string text = pattern.get_string("String");
  if (text.empty()) fail(Exit::bad_data, "{}: the pattern is empty", pattern.where());
  return Pattern::literal(text);
}

std::vector<Normalizer> read_normalizers(const JsonObject& tokenizer) {
  std::vector<Normalizer> steps;
  if (tokenizer.has("normalizer")) add_normalizer(tokenizer.get_object("normalizer"), steps);
  return steps;
}

PreTokenizers read_pre_tokenizers(const JsonObject& tokenizer) {
  PreTokenizers all;
  if (tokenizer.has("pre_tokenizer")) add_pre_tokenizer(tokenizer.get_object("pre_tokenizer"), all);
  return all;
}

}  // namespace starattn
