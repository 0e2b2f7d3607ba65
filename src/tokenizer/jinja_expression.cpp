// SPDX-License-Identifier: Apache-2.0
#include "tokenizer/jinja_expression.h"

#include <cctype>
#include <charconv>

namespace starattn::jinja {
namespace {

constexpr int kMaxDepth = 64;
constexpr std::size_t kMaxTextBytes = std::size_t{1} << 20;

// A recursive descent that works out values as it reads. Operands are worked out even where Jinja
// would not look at them, so what is undefined stays undefined instead of being an error.
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
    Json value = disjunction();
    if (take("if")) {
      const bool holds = is_true(disjunction());
      Json other = take("else") ? ternary() : undefined();
      if (!holds) value = std::move(other);
    }
    --depth_;
    return value;
  }
  Json disjunction() {
    Json value = conjunction();
    while (take("or")) {
      Json other = conjunction();
      if (!is_true(value)) value = std::move(other);
    }
    return value;
  }
  Json conjunction() {
    Json value = negation();
    while (take("and")) {
      Json other = negation();
      if (is_true(value)) value = std::move(other);
    }
    return value;
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
        value = passes(value, take_name()) == wanted;
      } else if (take("in")) {
        value = is_in(sum(), value);
      } else if (peek() == "not") {
        take("not");
        expect("in");
        value = !is_in(sum(), value);
      } else if (take("==")) {
        value = are_equal(value, sum());
      } else if (take("!=")) {
        value = !are_equal(value, sum());
      } else if (take("<=")) {
        value = number_of(value) <= number_of(sum());
      } else if (take(">=")) {
        value = number_of(value) >= number_of(sum());
      } else if (take("<")) {
        value = number_of(value) < number_of(sum());
      } else if (take(">")) {
        value = number_of(value) > number_of(sum());
      } else {
        return value;
      }
    }
  }
  static bool is_in(const Json& container, const Json& value) {
    return !container.is_discarded() && !value.is_discarded() && contains(container, value);
  }
  Json sum() {
    Json value = concatenation();
    for (;;) {
      if (take("+")) {
        const Json other = concatenation();
        value = value.is_number_integer() && other.is_number_integer()
                    ? Json(bounded(number_of(value) + number_of(other)))
                    : joined(to_text(value), to_text(other));
      } else if (take("-")) {
        value = bounded(number_of(value) - number_of(concatenation()));
      } else {
        return value;
      }
    }
  }
  Json concatenation() {  // which binds more tightly than a sum
    Json value = product();
    while (take("~")) value = joined(to_text(value), to_text(product()));
    return value;
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
      const std::int64_t by = number_of(postfix());
      if (by <= 0) refuse("a remainder by a number that is not above 0");
      value = ((number_of(value) % by) + by) % by;
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
          value = value.is_discarded() ? undefined() : call_method(value, name, arguments);
        } else {
          value = member(value, name);
        }
      } else if (take("[")) {
        value = subscript(value);
      } else if (take("|")) {
        const std::string name = take_name();
        value = filtered(value, name, take("(") ? read_arguments() : Arguments());
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
    const std::int64_t step = bounds[2].is_discarded() ? 1 : number_of(bounds[2]);
    return value.is_discarded() ? undefined() : slice_of(value, bounds[0], bounds[1], step);
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
      const std::int64_t value = number_of(postfix());
      --depth_;
      return bounded(-value);
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
    if (take("(")) return call(name, read_arguments());
    const Json* value = variables_.find(name);
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
    return values;
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
  static Json call(const std::string& name, const Arguments& arguments) {
    if (name == "raise_exception") refuse(arguments.text(0, "the template refuses it"));
    if (name == "strftime_now") return fixed_date(arguments.text(0, ""));
    if (name != "namespace" || !arguments.values.empty()) refuse("the function " + name);
    Json values = Json::object();
    for (const auto& [key, value] : arguments.named) values[key] = value;
    return values;
  }

  std::string_view rest_;
  Variables& variables_;
  int depth_ = 0;
};

}  // namespace

Json* Variables::find(const std::string& name) {
  for (auto scope = scopes_.rbegin(); scope != scopes_.rend(); ++scope) {
    const auto value = scope->find(name);
    if (value != scope->end()) return &value->second;
  }
  return nullptr;
}

Json evaluate(std::string_view expression, Variables& variables) {
  return Reader(expression, variables).whole();
}

}  // namespace starattn::jinja
