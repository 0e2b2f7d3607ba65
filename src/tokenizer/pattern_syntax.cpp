// SPDX-License-Identifier: Apache-2.0
#include "tokenizer/pattern_syntax.h"

#include <cctype>
#include <string_view>

#include "tokenizer/unsupported.h"

namespace starattn {
namespace {

// As the inside of a class.
constexpr const char* kSpace =
    R"(\x{9}-\x{d}\x{20}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";
constexpr const char* kNotSpace =
    R"(\x{0}-\x{8}\x{e}-\x{1f}\x{21}-\x{84}\x{86}-\x{9f}\x{a1}-\x{167f}\x{1681}-\x{1fff})"
    R"(\x{200b}-\x{2027}\x{202a}-\x{202e}\x{2030}-\x{205e}\x{2060}-\x{2fff}\x{3001}-\x{10ffff})";
constexpr const char* kWord =
    R"(\p{L}\p{M}\p{Nd}\p{Nl}\p{Pc}\x{24b6}-\x{24e9}\x{1f130}-\x{1f149}\x{1f150}-\x{1f169})"
    R"(\x{1f170}-\x{1f189})";
constexpr const char* kHex = "0-9A-Fa-f";

class Rewriter {
 public:
  Rewriter(std::string_view pattern, const std::string& where) : rest_(pattern), where_(where) {}

  std::string rewrite() {
    while (!rest_.empty()) {
      if (rest_[0] == '\\') {
        escape();
      } else if (in_class_) {
        class_member();
      } else {
        outside_class();
      }
    }
    return std::move(result_);
  }

 private:
  void copy(std::size_t n) {
    n = std::min(n, rest_.size());
    result_ += rest_.substr(0, n);
    rest_.remove_prefix(n);
  }
  void replace(std::size_t n, const std::string& by) {
    result_ += by;
    rest_.remove_prefix(n);
  }
  [[noreturn]] void refuse(const std::string& what) const {
    unsupported(where_, fmt::format("the pattern has {} at '{}'", what, rest_.substr(0, 20)),
                "rewrite the pattern without it");
  }

  void escape() {
    switch (rest_.size() > 1 ? rest_[1] : '\0') {
      case 's':
        return set(kSpace);
      case 'w':
        return set(kWord);
      case 'h':
        return set(kHex);
      case 'd':
        return replace(2, R"(\p{Nd})");
      case 'D':
        return replace(2, R"(\P{Nd})");
      case 'S':
        return in_class_ ? replace(2, kNotSpace) : complement(kSpace);
      case 'W':
        return complement(kWord);
      case 'H':
        return complement(kHex);
      case 'b':
        return in_class_ ? copy(2) : replace(2, boundary('!', '='));
      case 'B':
        return in_class_ ? copy(2) : replace(2, boundary('=', '!'));
      case 'u':
        return unicode_escape();
      case 'p':
      case 'P':
        return property();
      default:
        return copy(2);
    }
  }
  void set(const std::string& members) {
    replace(2, in_class_ ? members : fmt::format("[{}]", members));
  }
  void complement(const std::string& members) {
    if (in_class_) refuse("a complement inside a class");
    replace(2, fmt::format("[^{}]", members));
  }
  // A word character behind and none ahead, or none behind and one ahead. (\B: both, or neither.)
  static std::string boundary(char ahead_of_word, char ahead_of_none) {
    return fmt::format("(?:(?<=[{0}])(?{1}[{0}])|(?<![{0}])(?{2}[{0}]))", kWord, ahead_of_word,
                       ahead_of_none);
  }
  void property() {
    const std::size_t end = rest_.find('}');
    if (rest_.substr(2, 1) != "{" || end == std::string_view::npos) refuse("a broken property");
    copy(end + 1);
  }
  void unicode_escape() {
    const std::string_view digits = rest_.substr(2, 4);
    for (const char c : digits) {
      if (!std::isxdigit(static_cast<unsigned char>(c))) refuse("a broken escape");
    }
    if (digits.size() != 4) refuse("a broken escape");
    replace(6, fmt::format(R"(\x{{{}}})", digits));
  }

  void class_member() {
    if (rest_.starts_with("[:")) return copy(std::max(rest_.find(":]"), std::size_t{1}) + 2);
    if (rest_[0] == '[') refuse("a class inside a class");
    if (rest_.starts_with("&&")) refuse("an intersection");
    if (rest_[0] == ']') in_class_ = false;
    copy(1);
  }

  void outside_class() {
    switch (rest_[0]) {
      case '[':
        in_class_ = true;
        copy(rest_.starts_with("[^") ? 2 : 1);
        if (rest_.starts_with("]")) copy(1);  // a member when it comes first
        return;
      case '{':
        return interval();
      case '(':
        if (rest_.starts_with("(?")) options();
        return copy(1);
      default:
        return copy(1);
    }
  }

  void interval() {
    std::size_t end = 1;
    while (end < rest_.size() &&
           (std::isdigit(static_cast<unsigned char>(rest_[end])) || rest_[end] == ',')) {
      ++end;
    }
    if (end == 1 || end >= rest_.size() || rest_[end] != '}') return copy(1);
    // Here {1,3}+ means (?:...{1,3})+, there it is possessive.
    if (rest_.substr(end + 1).starts_with('+')) refuse("an interval followed by +");
    if (rest_[1] == ',') replace(2, "{0,");
    copy(rest_.find('}') + 1);
  }

  // "(?i)" in front of everything and "(?i:" mean the same to both; other options do not.
  void options() const {
    std::size_t end = 2;
    while (end < rest_.size() &&
           (std::isalpha(static_cast<unsigned char>(rest_[end])) || rest_[end] == '-')) {
      ++end;
    }
    if (end == 2 || end >= rest_.size() || (rest_[end] != ')' && rest_[end] != ':')) return;
    for (const char c : rest_.substr(2, end - 2)) {
      if (c != 'i' && c != '-') refuse("an option other than i");
    }
    if (rest_[end] == ')' && !result_.empty()) refuse("an option in mid-pattern");
  }

  std::string_view rest_;
  const std::string& where_;
  std::string result_;
  bool in_class_ = false;
};

}  // namespace

std::string to_pcre2_syntax(const std::string& oniguruma, const std::string& where) {
  return Rewriter(oniguruma, where).rewrite();
}

}  // namespace starattn
