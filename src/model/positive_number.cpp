// SPDX-License-Identifier: Apache-2.0
#include "model/positive_number.h"

#include "base/error.h"

namespace starattn {

double read_positive_number(const JsonObject& json, const char* key, double absent) {
  constexpr double kMost = 1e6;
  const double value = json.find_number(key).value_or(absent);
  if (!(value >= 1 / kMost && value <= kMost)) {
    fail(Exit::bad_data, "{}: key '{}': expected a number from {} to {}, got {}", json.where(), key,
         1 / kMost, kMost, value);
  }
  return value;
}

}  // namespace starattn
