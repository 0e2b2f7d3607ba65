// SPDX-License-Identifier: Apache-2.0
#include "tokenizer/jinja_values.h"

#include <algorithm>

namespace starattn::jinja {
namespace {

constexpr std::size_t kMaxTextBytes = std::size_t{1} << 20;

const std::string& text_of(const Json& value) {
  if (!value.is_string()) refuse("a text was expected");
  return value.get_ref<const std::string&>();
}

std::string stripped(std::string text, std::string_view characters, bool left, bool right) {
  if (right) text.erase(text.find_last_not_of(characters) + 1);
  if (left) text.erase(0, std::min(text.find_first_not_of(characters), text.size()));
  return text;
}

Json parts_of(const std::string& text, const std::string& separator) {
  if (separator.empty()) refuse("split() at nothing");
  Json parts = Json::array();
  std::size_t begin = 0;
  for (std::size_t at; (at = text.find(separator, begin)) != std::string::npos;) {
    parts.push_back(text.substr(begin, at - begin));
    begin = at + separator.size();
  }
  parts.push_back(text.substr(begin));
  return parts;
}

std::string replaced(const std::string& text, const std::string& old, const std::string& by) {
  if (old.empty()) refuse("replace() of nothing");
  std::string result;
  std::size_t begin = 0;
  for (std::size_t at; (at = text.find(old, begin)) != std::string::npos;) {
    result.append(text, begin, at - begin).append(by);
    if (result.size() > kMaxTextBytes) refuse("a text that is too long");
    begin = at + old.size();
  }
  return result.append(text, begin);
}

std::int64_t length_of(const Json& value) {
  if (value.is_string() || !value.is_structured())
    refuse("the length of something that is no list");
  return static_cast<std::int64_t>(value.size());
}

}  // namespace

void refuse(const std::string& what) {
  throw NotUnderstood(what);
}

Json undefined() {
  return Json(Json::value_t::discarded);
}

std::int64_t number_of(const Json& value) {
  if (!value.is_number_integer()) refuse("an integer was expected");
  return value.get<std::int64_t>();
}

std::string Arguments::text(std::size_t i, const std::string& otherwise) const {
  return i < values.size() ? text_of(values[i]) : otherwise;
}

bool contains(const Json& container, const Json& value) {
  if (container.is_string()) return text_of(container).find(text_of(value)) != std::string::npos;
  if (container.is_object()) return value.is_string() && container.contains(text_of(value));
  if (!container.is_array()) refuse("'in' something that is no list");
  return std::ranges::find(container, value) != container.end();
}

Json slice_of(const Json& value, const Json& begin, const Json& end, std::int64_t step) {
  if (!value.is_array() || (step != 1 && step != -1)) refuse("a slice");
  const std::int64_t n = std::ssize(value);
  const auto place = [&](const Json& at, std::int64_t otherwise) {
    if (at.is_discarded()) return otherwise;
    const std::int64_t i = number_of(at);
    return std::clamp(i < 0 ? i + n : i, std::int64_t{0}, n);
  };
  if (step == -1 && !(begin.is_discarded() && end.is_discarded())) refuse("a slice from behind");
  Json part = Json::array();
  for (std::int64_t i = place(begin, 0); i < place(end, n); ++i)
    part.push_back(value[static_cast<std::size_t>(step == 1 ? i : n - 1 - i)]);
  return part;
}

bool are_equal(const Json& a, const Json& b) {
  if (a.is_discarded() || b.is_discarded()) return a.is_discarded() && b.is_discarded();
  return a == b;
}

Json member(const Json& value, const Json& key) {
  if (value.is_object() && key.is_string())
    return value.contains(text_of(key)) ? value[text_of(key)] : undefined();
  if (value.is_array() && key.is_number_integer()) {
    const auto i = key.get<std::int64_t>();
    const std::int64_t place = i < 0 ? i + std::ssize(value) : i;
    return place >= 0 && place < std::ssize(value) ? value[static_cast<std::size_t>(place)]
                                                   : undefined();
  }
  return undefined();
}

Json call_method(const Json& value, const std::string& name, const Arguments& arguments) {
  if (value.is_object() && name == "get") {
    const std::string key = arguments.text(0, "");
    if (value.contains(key)) return value[key];
    return arguments.values.size() > 1 ? arguments.values[1] : Json();
  }
  const std::string& text = text_of(value);
  constexpr const char* kSpace = " \t\n\r\v\f";
  if (name == "strip") return stripped(text, arguments.text(0, kSpace), true, true);
  if (name == "lstrip") return stripped(text, arguments.text(0, kSpace), true, false);
  if (name == "rstrip") return stripped(text, arguments.text(0, kSpace), false, true);
  if (name == "startswith") return text.starts_with(arguments.text(0, ""));
  if (name == "endswith") return text.ends_with(arguments.text(0, ""));
  if (name == "split") return parts_of(text, arguments.text(0, ""));
  if (name == "replace" && arguments.values.size() == 2)
    return replaced(text, arguments.text(0, ""), arguments.text(1, ""));
  refuse("the method " + name);
}

Json filtered(const Json& value, const std::string& name, const Arguments& arguments) {
  if (name == "trim") return call_method(value, "strip", arguments);
  if (name == "length" || name == "count") return length_of(value);
  if (name == "default" || name == "d")
    return value.is_discarded() && !arguments.values.empty() ? arguments.values[0] : value;
  if (name == "string") return to_text(value);
  if (name == "list" && value.is_array()) return value;
  if (name == "selectattr" && value.is_array() && arguments.values.size() == 3 &&
      arguments.text(1, "") == "equalto") {
    Json chosen = Json::array();
    for (const Json& item : value) {
      if (are_equal(member(item, arguments.values[0]), arguments.values[2])) chosen.push_back(item);
    }
    return chosen;
  }
  if ((name == "first" || name == "last") && value.is_array())
    return value.empty() ? undefined() : name == "first" ? value.front() : value.back();
  refuse("the filter " + name);
}

bool passes(const Json& value, const std::string& test) {
  if (test == "defined") return !value.is_discarded();
  if (test == "undefined") return value.is_discarded();
  if (test == "none") return value.is_null();
  if (test == "string") return value.is_string();
  if (test == "mapping") return value.is_object();
  if (test == "iterable" || test == "sequence") return value.is_string() || value.is_structured();
  if (test == "number") return value.is_number();
  if (test == "boolean") return value.is_boolean();
  if (test == "true") return value.is_boolean() && value.get<bool>();
  if (test == "false") return value.is_boolean() && !value.get<bool>();
  refuse("the test " + test);
}

std::string fixed_date(const std::string& format) {
  std::string date;
  for (std::size_t at = 0; at < format.size(); ++at) {
    if (format[at] != '%') {
      date += format[at];
      continue;
    }
    switch (++at < format.size() ? format[at] : '%') {
      case 'd':
      case 'm':
        date += "01";
        break;
      case 'B':
        date += "January";
        break;
      case 'b':
        date += "Jan";
        break;
      case 'Y':
        date += "2026";
        break;
      default:
        refuse("the date's format " + format);
    }
  }
  return date;
}

bool is_true(const Json& value) {
  if (value.is_discarded() || value.is_null()) return false;
  if (value.is_boolean()) return value.get<bool>();
  if (value.is_number()) return value != 0;
  if (value.is_string()) return !value.get_ref<const std::string&>().empty();
  return !value.empty();
}

std::string to_text(const Json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_discarded()) return "";
  if (value.is_null()) return "None";
  if (value.is_boolean()) return value.get<bool>() ? "True" : "False";
  if (value.is_number_integer()) return value.dump();
  refuse("a list or an object written out");
}

}  // namespace starattn::jinja
