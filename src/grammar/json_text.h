// SPDX-License-Identifier: Apache-2.0
// JSON as text: what its values look like, as expressions.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "grammar/expressions.h"

namespace starattn {

// Between two parts of JSON: nothing, a blank, or a line feed and up to 64 blanks or tabs. JSON
// allows any number of them; a model that writes one after another would never end.
Expression json_space(Expressions& in);

// A string of min to max characters; character: one of them.
Expression json_string(Expressions& in, Expression character, std::uint32_t min = 0,
                       std::uint32_t max = Expressions::kNoLimit);

// Numbers have up to 18 digits in front of the point, as many behind it and two in the exponent:
// other programs can read them.
Expression json_integer(Expressions& in);
Expression json_number(Expressions& in);

// Bounds of a number; what is excluded counts as a bound, but for itself.
struct NumberBounds {
  std::optional<double> low, high;
  bool excludes_low = false, excludes_high = false;
};
// Between the bounds, without an exponent; kNoText where no number is. They have up to 15 digits,
// as many as a double tells apart.
Expression json_integer_within(Expressions& in, const NumberBounds& bounds);
Expression json_number_within(Expressions& in, const NumberBounds& bounds);

// [ ] with at least min and at most max items: the first are `first`, the others `others`. Fewer
// than `first` has may come.
Expression json_array(Expressions& in, const std::vector<Expression>& first, Expression others,
                      std::uint32_t min, std::uint32_t max);

struct JsonMember {
  std::string name;
  Expression value = kNoText;
  bool is_required = false;
};
// { } with these members in this order, then any number of others: other_value is their value's,
// kNoText where there are none; their names are not among the members'. A member without a value is
// left out.
Expression json_object(Expressions& in, const std::vector<JsonMember>& members,
                       Expression other_value);

// Any value, or any object, with up to 12 arrays and objects within each other.
Expression any_json_value(Expressions& in);
Expression any_json_object(Expressions& in);

}  // namespace starattn
