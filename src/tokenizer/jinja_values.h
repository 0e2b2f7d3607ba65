// SPDX-License-Identifier: Apache-2.0
// Values of Jinja's expressions, which are JSON's: what their operators, methods, filters and tests
// make of them. All throw NotUnderstood for what they do not know.
#pragma once

#include <cstdint>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

#include "base/json.h"

namespace starattn::jinja {

// Something that we do not know how to do, or that the template itself refuses.
class NotUnderstood : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

[[noreturn]] void refuse(const std::string& what);

Json undefined();
std::int64_t number_of(const Json& value);

bool is_true(const Json& value);
std::string to_text(const Json& value);  // not of lists and objects

bool contains(const Json& container, const Json& value);
// value[begin:end] and value[::-1]
Json slice_of(const Json& value, const Json& begin, const Json& end, std::int64_t step);
bool are_equal(const Json& a, const Json& b);
// value.key or value[key]; undefined where there is none.
Json member(const Json& value, const Json& key);

// Of a method or a filter.
struct Arguments {
  std::vector<Json> values;
  std::map<std::string, Json> named;

  std::string text(std::size_t i, const std::string& otherwise) const;
};
Json call_method(const Json& value, const std::string& name, const Arguments& arguments);
Json filtered(const Json& value, const std::string& name, const Arguments& arguments);
bool passes(const Json& value, const std::string& test);
// 1 January 2026 in a format of strftime, in place of today, so that a document has the same tokens
// tomorrow. Templates that ask whether they can have today's date have one of their own.
std::string fixed_date(const std::string& format);

}  // namespace starattn::jinja
