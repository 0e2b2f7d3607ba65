// SPDX-License-Identifier: Apache-2.0
#include "tokenizer/jinja_expression.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <iterator>
#include <optional>

namespace starattn::jinja {
namespace {

constexpr int kMaxDepth = 64;
constexpr std::size_t kMaxTextBytes = std::size_t{1} << 20;

// Whether what is in a value, texts byte by byte, is no more than n_left, and no deeper than depth.
bool is_within(const Json& value, std::size_t& n_left, int depth) {
  const std::size_t size =
      1 + (value.is_string() ? value.get_ref<const std::string&>().size() : std::size_t{0});
  if (depth == 0 || size > n_left) return false;
  n_left -= size;
  if (!value.is_structured()) return true;
  return std::all_of(value.begin(), value.end(),
                     [&](const Json& part) { return is_within(part, n_left, depth - 1); });
}

// Lists of lists grow as fast as texts of texts do.
Json limited(Json value) {
  std::size_t n_left = kMaxTextBytes;
  if (!is_within(value, n_left, kMaxDepth)) refuse("a list that is too long");
  return value;
}

// A recursive descent that works out values as it reads. What Jinja would not look at, as the first
// operand has decided, is read over: everything in there is undefined, and nothing an error.
class Reader {
 public:
  Reader(std::string_view text, Variables& variables) : rest_(text), variables_(variables) {}

  Json whole() {
    Json value = ternary();
    if (!peek().empty()) refuse("'" + std::string(peek()) + "' behind an expression");
    return value;
  }

 private:
  static bool is_name(char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '_'; }

  // The next token: a name or number, an operator, or the quote that opens a text.
  std::string_view peek() {
    while (!rest_.empty() && std::isspace(static_cast<unsigned char>(rest_[0])))
      rest_.remove_prefix(1);
    std::size_t n = 0;
    while (n < rest_.size() && is_name(rest_[n])) ++n;
    if (n > 0 || rest_.empty()) return rest_.substr(0, n);
    for (const std::string_view two : {"==", "!=", "<=", ">=", "//", "**"})
      if (rest_.starts_with(two)) return rest_.substr(0, 2);
    return rest_.substr(0, 1);
  }
  bool take(std::string_view token) {
    if (peek() != token) return false;
    rest_.remove_prefix(token.size());
    return true;
  }
  void expect(std::string_view token) {
    if (!take(token)) refuse("no '" + std::string(token) + "' where one belongs");
  }
  std::string take_name() {
    const std::string name(peek());
    if (name.empty() || !is_name(name[0])) refuse("no name where one belongs");
    rest_.remove_prefix(name.size());
    return name;
  }

  Json ternary() {
    if (++depth_ > kMaxDepth) refuse("an expression that is too deep");
    std::optional<NotUnderstood> error;
    Json value = first_operand(error);
    if (take("if")) {
      const bool holds = is_true(disjunction());
      if (!holds) error.reset();
      Json other = undefined();
      if (take("else")) other = read_if(!holds, &Reader::ternary);
      if (!holds) value = std::move(other);
    }
    if (error) throw NotUnderstood(*error);
    --depth_;
    return value;
  }
  // Whether it counts is said behind it. If it is an error, it is read over, and the error kept.
  Json first_operand(std::optional<NotUnderstood>& error) {
    const std::string_view begin = rest_;
    const int depth = depth_;
    try {
      return disjunction();
    } catch (const NotUnderstood& not_understood) {
      if (n_unwanted_ > 0) throw;  // for a reason that no condition changes
      error = not_understood;
    }
    rest_ = begin;
    depth_ = depth;
    return read_if(false, &Reader::disjunction);
  }
  Json disjunction() {
    Json value = conjunction();
    while (take("or")) {
      const bool decides = is_true(value);
      Json other = read_if(!decides, &Reader::conjunction);
      if (!decides) value = std::move(other);
    }
    return value;
  }
  Json conjunction() {
    Json value = negation();
    while (take("and")) {
      const bool decides = !is_true(value);
      Json other = read_if(!decides, &Reader::negation);
      if (!decides) value = std::move(other);
    }
    return value;
  }
  // Reads over it otherwise.
  Json read_if(bool is_wanted, Json (Reader::*part)()) {
    if (!is_wanted) ++n_unwanted_;
    Json value = (this->*part)();
    if (!is_wanted) --n_unwanted_;
    return value;
  }
  template <typename Work>
  Json worked_out(Work work) const {
    return n_unwanted_ > 0 ? undefined() : Json(work());
  }
  Json negation() {
    bool is_negative = false;
    bool is_negated = false;
    while (take("not")) {
      is_negated = true;
      is_negative = !is_negative;
    }
    Json value = comparison();
    return is_negated ? Json(is_true(value) != is_negative) : value;
  }
  Json comparison() {
    Json value = sum();
    for (;;) {
      if (take("is")) {
        const bool wanted = !take("not");
        const std::string test = take_name();
        value = worked_out([&] { return passes(value, test) == wanted; });
        continue;
      }
      const bool is_denied = peek() == "not";
      std::string word(peek());
      if (is_denied) {
        take(word);
        word = "in";
        if (peek() != word) expect(word);
      }
      if (word != "in" && word != "==" && word != "!=" && word != "<=" && word != ">=" &&
          word != "<" && word != ">") {
        return value;
      }
      take(word);
      const Json other = sum();
      value = worked_out([&] { return is_so(value, word, other) != is_denied; });
    }
  }
  static bool is_so(const Json& value, std::string_view word, const Json& other) {
    if (word == "in") return is_in(other, value);
    if (word == "==") return are_equal(value, other);
    if (word == "!=") return !are_equal(value, other);
    if (word == "<=") return number_of(value) <= number_of(other);
    if (word == ">=") return number_of(value) >= number_of(other);
    if (word == "<") return number_of(value) < number_of(other);
    return number_of(value) > number_of(other);
  }
  static bool is_in(const Json& container, const Json& value) {
    return !container.is_discarded() && !value.is_discarded() && contains(container, value);
  }
  Json sum() {
    Json value = concatenation();
    for (;;) {
      if (take("+")) {
        const Json other = concatenation();
        value = worked_out([&] { return sum_of(value, other); });
      } else if (take("-")) {
        const Json other = concatenation();
        value = worked_out([&] { return bounded(number_of(value) - number_of(other)); });
      } else {
        return value;
      }
    }
  }
  Json concatenation() {  // which binds more tightly than a sum
    Json value = product();
    while (take("~")) {
      const Json other = product();
      value = worked_out([&] { return joined(to_text(value), to_text(other)); });
    }
    return value;
  }
  static Json sum_of(const Json& left, const Json& right) {
    if (left.is_number_integer() && right.is_number_integer())
      return bounded(number_of(left) + number_of(right));
    if (!left.is_array() || !right.is_array()) return joined(to_text(left), to_text(right));
    Json both = left;
    both.insert(both.end(), right.begin(), right.end());
    return limited(std::move(both));
  }
  static Json joined(const std::string& left, const std::string& right) {
    if (left.size() + right.size() > kMaxTextBytes) refuse("a text that is too long");
    return left + right;
  }
  static std::int64_t bounded(std::int64_t number) {
    if (number < -(1LL << 30) || number > (1LL << 30)) refuse("a number that is too large");
    return number;
  }
  Json product() {
    Json value = postfix();
    while (take("%")) {
      const Json other = postfix();
      value = worked_out([&] {
        const std::int64_t by = number_of(other);
        if (by <= 0) refuse("a remainder by a number that is not above 0");
        return ((number_of(value) % by) + by) % by;
      });
    }
    return value;
  }

  Json postfix() {
    Json value = primary();
    for (;;) {
      if (take(".")) {
        const std::string name = take_name();
        if (take("(")) {
          const Arguments arguments = read_arguments();
          const bool is_there = !value.is_discarded();
          value = worked_out(
              [&] { return is_there ? call_method(value, name, arguments) : undefined(); });
        } else {
          value = member(value, name);
        }
      } else if (take("[")) {
        value = subscript(value);
      } else if (take("|")) {
        const std::string name = take_name();
        const Arguments arguments = take("(") ? read_arguments() : Arguments();
        value = worked_out([&] { return filtered(value, name, arguments); });
      } else {
        return value;
      }
    }
  }
  Json subscript(const Json& value) {
    Json bounds[3] = {undefined(), undefined(), undefined()};
    std::size_t n_colons = 0;
    while (!take("]")) {
      if (take(":")) {
        if (++n_colons > 2) refuse("a slice");
      } else {
        bounds[n_colons] = ternary();
      }
    }
    if (n_colons == 0) return member(value, bounds[0]);
    if (value.is_discarded() || n_unwanted_ > 0) return undefined();
    const std::int64_t step = bounds[2].is_discarded() ? 1 : number_of(bounds[2]);
    return slice_of(value, bounds[0], bounds[1], step);
  }

  Json primary() {
    const std::string token(peek());
    if (token == "'" || token == "\"") return text_literal();
    if (token.empty()) refuse("no expression where one belongs");
    if (take("(")) {
      Json value = ternary();
      expect(")");
      return value;
    }
    if (take("-")) {
      if (++depth_ > kMaxDepth) refuse("an expression that is too deep");
      const Json value = postfix();
      --depth_;
      return worked_out([&] { return bounded(-number_of(value)); });
    }
    if (take("[")) return list();
    if (!is_name(token[0])) refuse("'" + token + "'");
    const std::string name = take_name();
    if (std::isdigit(static_cast<unsigned char>(name[0]))) {
      if (rest_.starts_with('.')) refuse("a number with a fraction");
      return number(name);
    }
    if (name == "true" || name == "True") return true;
    if (name == "false" || name == "False") return false;
    if (name == "none" || name == "None") return {};
    if (take("(")) {
      const Arguments arguments = read_arguments();
      return worked_out([&] { return call(name, arguments); });
    }
    const Json* value = n_unwanted_ > 0 ? nullptr : variables_.find(name);
    if (!value && n_unwanted_ == 0 && variables_.macros.contains(name)) refuse("the macro " + name);
    return value ? *value : undefined();
  }
  static Json number(const std::string& digits) {
    std::int64_t value = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
    if (error != std::errc() || end != digits.data() + digits.size())
      refuse("the number " + digits);
    return bounded(value);
  }
  Json list() {
    Json values = Json::array();
    while (!take("]")) {
      values.push_back(ternary());
      if (peek() != "]") expect(",");
    }
    return limited(std::move(values));
  }
  Json text_literal() {
    const char quote = rest_[0];
    rest_.remove_prefix(1);
    std::string text;
    while (!rest_.empty() && rest_[0] != quote) {
      char c = rest_[0];
      rest_.remove_prefix(1);
      if (c == '\\' && !rest_.empty()) {
        c = rest_[0] == 'n' ? '\n' : rest_[0] == 't' ? '\t' : rest_[0] == 'r' ? '\r' : rest_[0];
        rest_.remove_prefix(1);
      }
      text += c;
    }
    if (rest_.empty()) refuse("a text without its end");
    rest_.remove_prefix(1);
    return text;
  }
  Arguments read_arguments() {  // behind "("
    Arguments arguments;
    while (!take(")")) {
      const std::string_view before = rest_;
      const std::string name(peek());
      if (!name.empty() && is_name(name[0]) && take(name) && peek() == "=") {
        take("=");
        arguments.named[name] = ternary();
      } else {
        rest_ = before;
        arguments.values.push_back(ternary());
      }
      if (peek() != ")") expect(",");
    }
    return arguments;
  }
  Json call(const std::string& name, const Arguments& arguments) const {
    const auto macro = variables_.macros.find(name);
    if (macro != variables_.macros.end()) return macro->second(arguments);
    if (name == "raise_exception") refuse(arguments.text(0, "the template refuses it"));
    if (name == "strftime_now") return fixed_date(arguments.text(0, ""));
    if (name != "namespace" || !arguments.values.empty()) refuse("the function " + name);
    Json values = Json::object();
    for (const auto& [key, value] : arguments.named) values[key] = value;
    return limited(std::move(values));
  }

  std::string_view rest_;
  Variables& variables_;
  int depth_ = 0;
  int n_unwanted_ = 0;  // operands around this one that decide nothing
};

}  // namespace

Json* Variables::find(const std::string& name) {
  for (auto scope = scopes_.rbegin(); scope != scopes_.rend(); ++scope) {
    const auto value = scope->find(name);
    if (value != scope->end()) return &value->second;
  }
  return nullptr;
}

Json* Variables::find_outermost(const std::string& name) {
  const auto value = scopes_[0].find(name);
  return value == scopes_[0].end() ? nullptr : &value->second;
}

std::vector<Variables::Scope> Variables::take_inner_scopes() {
  std::vector<Scope> inner(std::make_move_iterator(scopes_.begin() + 1),
                           std::make_move_iterator(scopes_.end()));
  scopes_.resize(1);
  return inner;
}

void Variables::put_inner_scopes(std::vector<Scope> scopes) {
  scopes_.resize(1);
  for (Scope& scope : scopes) scopes_.push_back(std::move(scope));
}

Json evaluate(std::string_view expression, Variables& variables) {
  return Reader(expression, variables).whole();
}

}  // namespace starattn::jinja
