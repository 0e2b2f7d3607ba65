// SPDX-License-Identifier: Apache-2.0
#include "tokenizer/normalizer.h"

#include <utf8proc.h>

#include <algorithm>
#include <optional>

#include "base/error.h"
#include "tokenizer/pattern.h"
#include "tokenizer/unicode.h"
#include "tokenizer/unicode9.h"
#include "tokenizer/unsupported.h"

namespace starattn {
namespace {

// A text may grow, but not without bounds: ▁ for a space makes three bytes of one.
constexpr std::size_t kMaxGrowth = 64;
constexpr std::size_t kMaxShortText = std::size_t{1} << 16;

std::optional<NormalForm> form_from_name(const std::string& name) {
  if (name == "NFC") return NormalForm::nfc;
  if (name == "NFD") return NormalForm::nfd;
  if (name == "NFKC") return NormalForm::nfkc;
  if (name == "NFKD") return NormalForm::nfkd;
  return std::nullopt;
}

std::string replace_all(std::string_view text, const Pattern& pattern, const std::string& by,
                        std::size_t max_bytes) {
  std::string result;
  result.reserve(text.size());
  std::size_t done = 0;
  pattern.each_match(text, [&](std::size_t begin, std::size_t end) {
    result.append(text.substr(done, begin - done)).append(by);
    done = end;
    if (result.size() > max_bytes) {
      fail(Exit::bad_data, "the tokenizer's normalizer makes more than {} bytes of a text",
           max_bytes);
    }
  });
  return result.append(text.substr(done));
}

std::vector<utf8proc_int32_t> decompose(std::string_view text, bool compatibility) {
  const auto options = static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_DECOMPOSE |
                                                      (compatibility ? UTF8PROC_COMPAT : 0));
  std::vector<utf8proc_int32_t> points;
  points.reserve(text.size());
  for (std::size_t at = 0; at < text.size(); at += character_bytes(text, at)) {
    if (is_newer_than_unicode9(character_at(text, at))) {
      points.push_back(static_cast<utf8proc_int32_t>(character_at(text, at)));
      continue;
    }
    utf8proc_int32_t parts[32];  // the longest decomposition has 18
    int boundary = 0;
    const auto n = utf8proc_decompose_char(static_cast<utf8proc_int32_t>(character_at(text, at)),
                                           parts, 32, options, &boundary);
    if (n < 0 || n > 32) {
      fail(Exit::bad_data, "Unicode normalization failed at byte {}: {}", at, utf8proc_errmsg(n));
    }
    points.insert(points.end(), parts, parts + n);
  }
  return points;
}

// Puts the marks behind each base character into canonical order. utf8proc does it too, but in
// quadratic time: a megabyte of marks would take hours.
void order_marks(std::vector<utf8proc_int32_t>& points) {
  const auto order_of = [](utf8proc_int32_t point) -> int {
    if (is_newer_than_unicode9(static_cast<char32_t>(point))) return 0;
    return utf8proc_get_property(point)->combining_class;
  };
  for (auto it = points.begin(); it != points.end();) {
    if (order_of(*it) == 0) {
      ++it;
      continue;
    }
    const auto end =
        std::find_if(it, points.end(), [&](auto point) { return order_of(point) == 0; });
    std::stable_sort(it, end, [&](auto a, auto b) { return order_of(a) < order_of(b); });
    it = end;
  }
}

// utf8proc drops U+11A7 behind a Hangul syllable: it takes the place before the first trailing
// consonant for one. Nothing composes with U+11A7 or across it, so the text is composed between; as
// it is between characters that are newer than the tables.
std::vector<utf8proc_int32_t> compose(std::vector<utf8proc_int32_t> points) {
  constexpr utf8proc_int32_t kBeforeTrailing = 0x11a7;
  const auto options = static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE);
  std::vector<utf8proc_int32_t> composed;
  composed.reserve(points.size());
  for (auto begin = points.begin(); begin != points.end();) {
    const auto end = std::find_if(begin, points.end(), [](utf8proc_int32_t point) {
      return point == kBeforeTrailing || is_newer_than_unicode9(static_cast<char32_t>(point));
    });
    const auto n = utf8proc_normalize_utf32(&*begin, end - begin, options);
    composed.insert(composed.end(), begin, begin + n);
    begin = end;
    if (end != points.end()) composed.push_back(*begin++);
  }
  return composed;
}

}  // namespace

std::string normalize(std::string text, NormalForm form) {
  const auto is_ascii = [](char c) { return static_cast<unsigned char>(c) < 0x80; };
  if (std::all_of(text.begin(), text.end(), is_ascii)) return text;

  std::vector<utf8proc_int32_t> points =
      decompose(text, form == NormalForm::nfkc || form == NormalForm::nfkd);
  order_marks(points);
  if (form == NormalForm::nfc || form == NormalForm::nfkc) points = compose(std::move(points));
  text.clear();
  for (const utf8proc_int32_t point : points) append_utf8(text, static_cast<char32_t>(point));
  return text;
}

Normalizer::Normalizer(const JsonObject& tokenizer) {
  if (tokenizer.has("normalizer")) add(tokenizer.get_object("normalizer"));
}

void Normalizer::add(const JsonObject& json) {
  const std::string type = json.get_string("type");
  if (const auto form = form_from_name(type)) {
    steps_.push_back(
        [form](std::string text, std::size_t) { return normalize(std::move(text), *form); });
  } else if (type == "Sequence") {
    for (const Json& step : json.get("normalizers")) add({step, json.where()});
  } else if (type == "Prepend") {
    steps_.push_back([prefix = json.get_string("prepend")](std::string text, std::size_t) {
      return text.empty() ? std::move(text) : prefix + text;
    });
  } else if (type == "Replace") {
    steps_.push_back([pattern = Pattern::read(json, "pattern"), by = json.get_string("content")](
                         const std::string& text, std::size_t max_bytes) {
      return replace_all(text, pattern, by, max_bytes);
    });
  } else {
    unsupported(json.where(), "normalizer '" + type + "'",
                "NFC, NFD, NFKC, NFKD, Prepend, Replace and Sequence are");
  }
}

std::string Normalizer::operator()(std::string text) const {
  const std::size_t max_bytes = std::max(kMaxShortText, kMaxGrowth * text.size());
  for (const auto& step : steps_) text = step(std::move(text), max_bytes);
  return text;
}

}  // namespace starattn
