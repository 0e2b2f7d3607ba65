// SPDX-License-Identifier: Apache-2.0
#include "grammar/json_text.h"

#include <algorithm>
#include <span>

#include "grammar/code_points.h"

namespace starattn {
namespace {

constexpr std::uint32_t kMostBlanks = 64;
constexpr std::uint32_t kMostDigits = 18;
constexpr int kDeepest = 12;

Expression digit(Expressions& in) {
  return in.one_of('0', '9');
}

Expression comma(Expressions& in) {
  return in.sequence(in.text(","), json_space(in));
}

// Names that are none of these, quotes included, without escapes. names: sorted, all with the same
// `begin` first characters.
Expression other_name(Expressions& in, std::span<const std::u32string> names, std::size_t begin) {
  CodePoints others =
      CodePoints(0x20, CodePoints::kHighest).without({'"', '"'}).without({'\\', '\\'});
  const Expression any = in.repeat(utf8_of(in, others), 0);
  const Expression quote = in.text("\"");
  const bool is_name = !names.empty() && names[0].size() == begin;
  if (is_name) names = names.subspan(1);
  std::vector<Expression> ways;
  if (!is_name) ways.push_back(quote);  // it ends here
  while (!names.empty()) {
    const char32_t c = names[0][begin];
    const auto end =
        std::ranges::find_if(names, [&](const std::u32string& name) { return name[begin] != c; });
    const auto some = names.first(static_cast<std::size_t>(end - names.begin()));
    ways.push_back(in.sequence(in.text(utf8_of(c)), other_name(in, some, begin + 1)));
    others = others.without({c, c});
    names = names.subspan(some.size());
  }
  ways.push_back(in.sequence({utf8_of(in, others), any, quote}));
  return in.either(std::move(ways));
}

Expression other_name(Expressions& in, const std::vector<JsonMember>& members) {
  std::vector<std::u32string> names;
  for (const JsonMember& member : members) names.push_back(characters_of(member.name));
  std::erase_if(names, [](const std::u32string& name) {  // they need escapes
    return std::ranges::any_of(name, [](char32_t c) { return c < 0x20 || c == '"' || c == '\\'; });
  });
  std::ranges::sort(names);
  return in.sequence(in.text("\""), other_name(in, names, 0));
}

Expression any_value(Expressions& in, int depth) {
  std::vector<Expression> ways = {json_string(in, any_json_character(in)), json_number(in),
                                  in.any_of_texts({"true", "false", "null"})};
  if (depth > 0) {
    const Expression inner = any_value(in, depth - 1);
    ways.push_back(json_array(in, {}, inner, 0, Expressions::kNoLimit));
    ways.push_back(json_object(in, {}, inner));
  }
  return in.either(std::move(ways));
}

}  // namespace

Expression json_space(Expressions& in) {
  const Expression blank = in.any_of_texts({" ", "\t"});
  return in.optional(
      in.either({in.text(" "), in.sequence(in.text("\n"), in.repeat(blank, 0, kMostBlanks))}));
}

Expression json_string(Expressions& in, Expression character, std::uint32_t min,
                       std::uint32_t max) {
  const Expression quote = in.text("\"");
  return in.sequence({quote, in.repeat(character, min, max), quote});
}

Expression json_integer(Expressions& in) {
  const Expression natural = in.either(
      {in.text("0"), in.sequence(in.one_of('1', '9'), in.repeat(digit(in), 0, kMostDigits - 1))});
  return in.sequence(in.optional(in.text("-")), natural);
}

Expression json_number(Expressions& in) {
  const Expression fraction = in.sequence(in.text("."), in.repeat(digit(in), 1, kMostDigits));
  const Expression exponent =
      in.sequence({in.any_of_texts({"e", "E"}), in.optional(in.any_of_texts({"+", "-"})),
                   in.repeat(digit(in), 1, 2)});
  return in.sequence({json_integer(in), in.optional(fraction), in.optional(exponent)});
}

Expression json_array(Expressions& in, const std::vector<Expression>& first, Expression others,
                      std::uint32_t min, std::uint32_t max) {
  const Expression space = json_space(in);
  const auto n_first = static_cast<std::uint32_t>(std::min<std::size_t>(first.size(), max));
  const auto less = [](std::uint32_t n, std::uint32_t by) {
    return n == Expressions::kNoLimit ? n : n - std::min(n, by);
  };
  // From the last place to the first: what stands behind the items before it.
  const std::uint32_t n_before = std::max<std::uint32_t>(n_first, 1);
  Expression behind =
      in.repeat(in.sequence(comma(in), others), less(min, n_before), less(max, n_before));
  for (std::uint32_t i = n_first; i-- > 1;) {
    const Expression more = in.sequence({comma(in), first[i], behind});
    behind = i >= min ? in.optional(more) : more;
  }
  const Expression item = n_first > 0 ? first[0] : others;
  std::vector<Expression> ways;
  if (max > 0)
    ways.push_back(in.sequence({in.text("["), space, item, behind, space, in.text("]")}));
  if (min == 0) ways.push_back(in.text("[]"));
  return in.either(std::move(ways));
}

Expression json_object(Expressions& in, const std::vector<JsonMember>& members,
                       Expression other_value) {
  const Expression space = json_space(in);
  const Expression colon = in.sequence(in.text(":"), space);
  // From the last member to the first: what may stand from it on, behind a member and as the first.
  Expression behind = kEmptyText;
  Expression first = kNoText;
  if (other_value != kNoText) {
    const Expression other = in.sequence({other_name(in, members), colon, other_value});
    behind = in.repeat(in.sequence(comma(in), other), 0);
    first = in.sequence(other, behind);
  }
  bool may_be_empty = true;
  for (std::size_t i = members.size(); i-- > 0;) {
    const JsonMember& member = members[i];
    const Expression here =
        in.sequence({in.text(to_line(Json(member.name))), colon, member.value, behind});
    const Expression next = in.sequence(comma(in), here);
    behind = member.is_required ? next : in.either({next, behind});
    first = member.is_required ? here : in.either({here, first});
    may_be_empty = may_be_empty && !member.is_required;
  }
  std::vector<Expression> ways = {in.sequence({in.text("{"), space, first, space, in.text("}")})};
  if (may_be_empty) ways.push_back(in.text("{}"));
  return in.either(std::move(ways));
}

Expression any_json_value(Expressions& in) {
  return any_value(in, kDeepest);
}

Expression any_json_object(Expressions& in) {
  return json_object(in, {}, any_value(in, kDeepest - 1));
}

}  // namespace starattn
