// SPDX-License-Identifier: Apache-2.0
#include "checkpoint/hdf5_attributes.h"

#include <algorithm>
#include <vector>

#include "base/error.h"
#include "base/text.h"

namespace starattn::h5 {
namespace {

constexpr std::size_t kMaxAttributes = 64;

std::string writable_text(std::string text) {
  std::replace(text.begin(), text.end(), '\0', '?');
  for (std::size_t bad = 0; !is_utf8(text, &bad);) text[bad] = '?';
  if (text.size() > kMaxStringBytes) {
    std::size_t end = kMaxStringBytes;
    while (end > 0 && (text[end] & '\xc0') == '\x80') --end;
    text.resize(end);
  }
  return text;
}

Datatype string_type(std::size_t n_bytes) {
  Datatype type(H5Tcopy(H5T_C_S1), "copy the string type");
  check(H5Tset_size(type, n_bytes), "set a string's length");
  check(H5Tset_cset(type, H5T_CSET_UTF8), "set a string's encoding");
  check(H5Tset_strpad(type, H5T_STR_NULLPAD), "set a string's padding");
  return type;
}

void write_one(hid_t object, const std::string& name, hid_t type, const void* value) {
  const Dataspace scalar(H5Screate(H5S_SCALAR), "create a scalar space");
  Attribute attribute(H5Acreate2(object, name.c_str(), type, scalar, H5P_DEFAULT, H5P_DEFAULT),
                      "create attribute " + name);
  check(H5Awrite(attribute, type, value), "write attribute " + name);
  attribute.close("close attribute " + name);
}

herr_t collect_name(hid_t, const char* name, const H5A_info_t*, void* names) {
  auto& list = *static_cast<std::vector<std::string>*>(names);
  list.emplace_back(name);
  return list.size() > kMaxAttributes;  // non-zero stops
}

std::string read_string(hid_t attribute, hid_t type, const std::string& where) {
  const bool fixed_utf8 = check(H5Tis_variable_str(type), "ask for a string's kind") == 0 &&
                          H5Tget_cset(type) == H5T_CSET_UTF8 &&
                          H5Tget_strpad(type) == H5T_STR_NULLPAD;
  const std::size_t n_bytes = H5Tget_size(type);
  if (!fixed_utf8 || n_bytes == 0 || n_bytes > kMaxStringBytes) {
    fail(Exit::bad_data, "{}: expected a fixed-length UTF-8 string of at most {} bytes", where,
         kMaxStringBytes);
  }
  std::string text(n_bytes, '\0');
  check(H5Aread(attribute, type, text.data()), "read " + where);
  text.resize(text.find_last_not_of('\0') + 1);
  if (text.find('\0') != std::string::npos || !is_utf8(text)) {
    fail(Exit::bad_data, "{}: not UTF-8 text", where);
  }
  return text;
}

AttributeValue read_one(hid_t object, const std::string& name, const std::string& where) {
  const Attribute attribute(H5Aopen(object, name.c_str(), H5P_DEFAULT), "open " + where);
  const Datatype type(H5Aget_type(attribute), "get the type of " + where);
  const Dataspace space(H5Aget_space(attribute), "get the space of " + where);
  if (H5Sget_simple_extent_type(space) != H5S_SCALAR) {
    fail(Exit::bad_data, "{}: expected a single value", where);
  }
  if (H5Tget_class(type) == H5T_STRING) return read_string(attribute, type, where);
  if (check(H5Tequal(type, H5T_STD_I64LE), "compare types") == 0) {
    fail(Exit::bad_data, "{}: expected a 64-bit integer or a string", where);
  }
  std::int64_t number = 0;
  check(H5Aread(attribute, H5T_STD_I64LE, &number), "read " + where);
  return number;
}

std::string text_of(const AttributeValue& value) {
  if (const auto* number = std::get_if<std::int64_t>(&value)) return std::to_string(*number);
  return "'" + std::get<std::string>(value) + "'";
}

}  // namespace

void write_attributes(hid_t object, const Attributes& attributes) {
  for (const auto& [name, value] : attributes) {
    if (const auto* number = std::get_if<std::int64_t>(&value)) {
      write_one(object, name, H5T_STD_I64LE, number);
      continue;
    }
    const std::string text = writable_text(std::get<std::string>(value));
    // HDF5 has no empty type: an empty string is one zero byte.
    write_one(object, name, string_type(std::max<std::size_t>(text.size(), 1)), text.c_str());
  }
}

Attributes read_attributes(hid_t object, const std::string& where) {
  std::vector<std::string> names;
  check(H5Aiterate2(object, H5_INDEX_NAME, H5_ITER_INC, nullptr, collect_name, &names),
        "list the attributes of " + where);
  if (names.size() > kMaxAttributes) {
    fail(Exit::bad_data, "{}: more than {} attributes", where, kMaxAttributes);
  }
  Attributes attributes;
  for (const std::string& name : names) {
    attributes[name] = read_one(object, name, fmt::format("{}: attribute '{}'", where, name));
  }
  return attributes;
}

void expect_equal(const Attributes& found, const Attributes& expected, const std::string& where) {
  for (const auto& [name, value] : expected) {
    const auto it = found.find(name);
    if (it == found.end()) fail(Exit::bad_data, "{}: attribute '{}' is missing", where, name);
    if (it->second != value) {
      fail(Exit::bad_data, "{}: attribute '{}': expected {}, got {}", where, name, text_of(value),
           text_of(it->second));
    }
  }
  for (const auto& [name, value] : found) {
    if (!expected.contains(name)) {
      fail(Exit::bad_data, "{}: attribute '{}' is not one of ours", where, name);
    }
  }
}

}  // namespace starattn::h5
