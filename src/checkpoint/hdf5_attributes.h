// SPDX-License-Identifier: Apache-2.0
// Attributes of two kinds only: 64-bit integers and fixed-length UTF-8 strings. Anything else in a
// file that is read is refused.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <variant>

#include "checkpoint/hdf5.h"

namespace starattn::h5 {

using AttributeValue = std::variant<std::int64_t, std::string>;
using Attributes = std::map<std::string, AttributeValue>;

constexpr std::size_t kMaxStringBytes = 16384;

// Strings are cut to kMaxStringBytes at a character's edge; bytes that are not UTF-8 become '?'.
void write_attributes(hid_t object, const Attributes& attributes);

// All attributes of the object. Throws Error(bad_data) naming `where` and the attribute.
Attributes read_attributes(hid_t object, const std::string& where);

// Throws Error(bad_data) naming the first attribute that is missing, different or unexpected.
void expect_equal(const Attributes& found, const Attributes& expected, const std::string& where);

}  // namespace starattn::h5
