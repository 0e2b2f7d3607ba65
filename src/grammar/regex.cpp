// SPDX-License-Identifier: Apache-2.0
#include "grammar/regex.h"

#include <optional>

#include "base/error.h"
#include "base/text.h"
#include "grammar/code_points.h"

namespace starattn {
namespace {

constexpr std::size_t kMostCharacters = std::size_t{1} << 16;
constexpr int kDeepest = 100;  // groups within each other
constexpr std::uint32_t kHighestCount = 1'000'000'000;

CodePoints of(std::u32string_view characters) {
  CodePoints set;
  for (const char32_t c : characters) set.add(c, c);
  return set;
}

CodePoints digits() {
  return {'0', '9'};
}
CodePoints word_characters() {
  CodePoints set = digits();
  set.add('a', 'z');
  set.add('A', 'Z');
  set.add('_', '_');
  return set;
}
CodePoints line_ends() {
  return of(U"\n\r\u2028\u2029");
}
CodePoints spaces() {
  CodePoints set = line_ends();
  set.add(of(U"\t\v\f \u00a0\u1680\u202f\u205f\u3000\ufeff"));
  set.add(0x2000, 0x200a);
  return set;
}

// \d and the like; nothing for other letters.
std::optional<CodePoints> class_of(char32_t letter) {
  switch (letter) {
    case 'd':
      return digits();
    case 'D':
      return digits().others();
    case 'w':
      return word_characters();
    case 'W':
      return word_characters().others();
    case 's':
      return spaces();
    case 'S':
      return spaces().others();
    default:
      return std::nullopt;
  }
}

class RegexParser {
 public:
  RegexParser(Expressions& in, std::string_view regex, RegexUse use, const std::string& where)
      : in_(in), use_(use), where_(where) {
    std::size_t bad = 0;
    if (!is_utf8(regex, &bad))
      starattn::fail(Exit::bad_data, "{}: not UTF-8 at byte {}", where, bad);
    if (regex.size() > kMostCharacters) {
      starattn::fail(Exit::bad_data, "{}: a regular expression of {} bytes, at most {} are read",
                     where, regex.size(), kMostCharacters);
    }
    text_ = characters_of(regex);
  }

  Expression parse() {
    std::vector<Expression> ways;
    do {
      const bool is_bound_in_front = take('^');
      Expression e = sequence(0);
      const bool is_bound_behind = take('$');
      if (use_ == RegexUse::pattern && !is_bound_in_front) e = in_.sequence(anything(), e);
      if (use_ == RegexUse::pattern && !is_bound_behind) e = in_.sequence(e, anything());
      ways.push_back(e);
    } while (take('|'));
    if (!at_end()) refuse("nothing opened the group that ends here");
    return in_.either(std::move(ways));
  }

 private:
  bool at_end() const { return at_ == text_.size(); }
  bool sees(char32_t c) const { return !at_end() && text_[at_] == c; }
  bool sees(std::u32string_view s) const {
    return std::u32string_view(text_).substr(at_).starts_with(s);
  }
  bool take(char32_t c) {
    const bool is_there = sees(c);
    at_ += is_there;
    return is_there;
  }
  char32_t next(const char* what) {
    if (at_end()) refuse(what);
    return text_[at_++];
  }

  [[noreturn]] void refuse(const std::string& why) const {
    const std::u32string_view rest = std::u32string_view(text_).substr(at_).substr(0, 12);
    std::string shown;
    for (const char32_t c : rest) shown += utf8_of(c);
    starattn::fail(Exit::bad_data, "{}: character {} of the regular expression{}: {}", where_,
                   at_ + 1, shown.empty() ? ", its end" : fmt::format(", '{}'", one_line(shown)),
                   why);
  }

  Expression anything() { return in_.repeat(character(CodePoints::all()), 0); }

  Expression character(const CodePoints& set) {
    const Expression e = use_ == RegexUse::pattern ? json_of(in_, set) : utf8_of(in_, set);
    if (e == kNoText) refuse("no character belongs to this class");
    return e;
  }

  Expression alternatives(int depth) {
    if (depth > kDeepest) refuse("groups are nested too deeply");
    std::vector<Expression> ways;
    do {
      ways.push_back(sequence(depth));
    } while (take('|'));
    return in_.either(std::move(ways));
  }

  Expression sequence(int depth) {
    std::vector<Expression> parts;
    while (!at_end() && !sees('|') && !sees(')') && !(depth == 0 && sees('$')))
      parts.push_back(repeated(depth));
    Expression e = kEmptyText;
    for (std::size_t i = parts.size(); i-- > 0;) e = in_.sequence(parts[i], e);
    return e;
  }

  Expression repeated(int depth) {
    const Expression e = atom(depth);
    std::uint32_t min = 1;
    std::uint32_t max = 1;
    if (take('*')) {
      min = 0;
      max = Expressions::kNoLimit;
    } else if (take('+')) {
      max = Expressions::kNoLimit;
    } else if (take('?')) {
      min = 0;
    } else if (take('{')) {
      min = count();
      max = min;
      if (take(',')) max = sees('}') ? Expressions::kNoLimit : count();
      if (!take('}')) refuse("expected '}' behind a count such as {2,5}; write \\{ for a brace");
      if (min > max) refuse("the first count is the larger one");
    } else {
      return e;
    }
    take('?');  // which texts match does not depend on it
    if (sees('*') || sees('+') || sees('?') || sees('{'))
      refuse("a repetition of a repetition; put the inner one in a group");
    return in_.repeat(e, min, max);
  }

  std::uint32_t count() {
    std::uint64_t n = 0;
    const std::size_t begin = at_;
    for (; !at_end() && text_[at_] >= '0' && text_[at_] <= '9'; ++at_) {
      n = n * 10 + (text_[at_] - '0');
      if (n > kHighestCount) refuse(fmt::format("counts go up to {}", kHighestCount));
    }
    if (at_ == begin) refuse("expected a count such as {2,5}; write \\{ for a brace");
    return static_cast<std::uint32_t>(n);
  }

  Expression atom(int depth) {
    if (sees('^') || sees('$')) {
      refuse(use_ == RegexUse::answer
                 ? "^ and $ may only stand around the whole expression"
                 : "^ and $ may only stand around the whole pattern or one of its alternatives");
    }
    if (sees('*') || sees('+') || sees('?') || sees('{')) refuse("nothing stands before it");
    if (sees('(')) return group(depth);
    if (take('[')) return character(bracket());
    if (take('.')) return character(line_ends().others());
    if (sees('\\')) return character(escape(/*is_in_bracket=*/false));
    const char32_t c = text_[at_++];
    return character({c, c});
  }

  Expression group(int depth) {
    if (sees(U"(?=") || sees(U"(?!") || sees(U"(?<=") || sees(U"(?<!"))
      refuse("looking ahead or back is not supported");
    take('(');
    if (take('?') && !take(':')) {
      take('P');
      if (!take('<'))
        refuse("of groups with a question mark only (?:...) and (?<name>...) are read");
      while (next("the group's name has no end") != '>') {
      }
    }
    const Expression e = alternatives(depth + 1);
    if (!take(')')) refuse("a group has no end");
    return e;
  }

  // Behind the '['.
  CodePoints bracket() {
    if (sees(U"[:"))
      refuse("classes of POSIX such as [:alpha:] are not read; write the ranges, as [A-Za-z]");
    const bool is_negated = take('^');
    CodePoints set;
    for (bool is_first = true; is_first || !sees(']'); is_first = false) {
      if (is_first && sees(']')) refuse("an empty class matches nothing");
      const CodePoints low = bracket_item();
      const bool is_range = sees('-') && at_ + 1 < text_.size() && text_[at_ + 1] != ']';
      if (!is_range) {
        set.add(low);
        continue;
      }
      ++at_;
      const CodePoints high = bracket_item();
      if (!is_one(low) || !is_one(high)) refuse("a range needs a character on each side");
      const char32_t first = low.ranges()[0].first;
      const char32_t last = high.ranges()[0].first;
      if (first > last) refuse("a range whose end comes before its beginning");
      set.add(first, last);
    }
    take(']');
    return is_negated ? set.others() : set;
  }

  static bool is_one(const CodePoints& set) {
    return set.ranges().size() == 1 && set.ranges()[0].first == set.ranges()[0].last;
  }

  CodePoints bracket_item() {
    if (at_end()) refuse("a class has no end");
    if (sees('\\')) return escape(/*is_in_bracket=*/true);
    const char32_t c = text_[at_++];
    return {c, c};
  }

  CodePoints escape(bool is_in_bracket) {
    const std::size_t begin = at_++;
    const char32_t letter = next("a backslash at the end");
    if (const std::optional<CodePoints> set = class_of(letter)) return *set;
    const char32_t c = escaped(letter, is_in_bracket);
    if (c != kNone) return {c, c};
    at_ = begin;
    refuse(letter == 'b' || letter == 'B' ? "borders of words are not supported"
           : letter == 'p' || letter == 'P'
               ? "Unicode properties are not supported; write the ranges"
           : letter >= '1' && letter <= '9' ? "references to groups are not supported"
                                            : "no such escape");
  }

  // kNone where there is no such escape.
  char32_t escaped(char32_t letter, bool is_in_bracket) {
    constexpr std::u32string_view kLetters = U"nrtfv";
    constexpr std::u32string_view kMeant = U"\n\r\t\f\v";
    const std::size_t at = kLetters.find(letter);
    if (at != std::u32string_view::npos) return kMeant[at];
    if (letter == 'b' && is_in_bracket) return '\b';
    if (letter == '0' && (at_end() || text_[at_] < '0' || text_[at_] > '9')) return 0;
    if (letter == 'x') return hexadecimal(2);
    if (letter == 'u') return code_point();
    const bool is_letter_or_digit = word_characters().contains(letter) && letter != '_';
    return is_letter_or_digit ? kNone : letter;
  }

  char32_t code_point() {
    if (take('{')) {
      std::size_t n = 0;
      while (at_ + n < text_.size() && text_[at_ + n] != '}') ++n;
      if (n == 0 || n > 6) refuse("expected \\u{...} with one to six hexadecimal digits");
      const char32_t c = hexadecimal(n);
      if (!take('}') || !CodePoints::all().contains(c)) refuse("no such character");
      return c;
    }
    const char32_t high = hexadecimal(4);
    if (high < 0xd800 || high > 0xdfff) return high;
    if (high > 0xdbff || !sees(U"\\u")) refuse("half of a pair of surrogates");
    at_ += 2;
    const char32_t low = hexadecimal(4);
    if (low < 0xdc00 || low > 0xdfff) refuse("half of a pair of surrogates");
    return 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);
  }

  char32_t hexadecimal(std::size_t n_digits) {
    char32_t value = 0;
    for (std::size_t i = 0; i < n_digits; ++i) {
      const char32_t c = next("a hexadecimal digit is missing");
      const bool is_digit = c >= '0' && c <= '9';
      const char32_t lower = c | 0x20U;
      if (!is_digit && (lower < 'a' || lower > 'f')) {
        --at_;
        refuse("expected a hexadecimal digit");
      }
      value = value * 16 + (is_digit ? c - '0' : lower - 'a' + 10);
    }
    return value;
  }

  static constexpr char32_t kNone = 0xffffffff;

  Expressions& in_;
  RegexUse use_;
  const std::string& where_;
  std::u32string text_;
  std::size_t at_ = 0;
};

}  // namespace

Expression parse_regex(Expressions& in, std::string_view regex, RegexUse use,
                       const std::string& where) {
  return RegexParser(in, regex, use, where).parse();
}

}  // namespace starattn
