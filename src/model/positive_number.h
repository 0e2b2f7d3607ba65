// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/json.h"

namespace starattn {

// What a model multiplies or divides by, or keeps within: from a millionth to a million. Throws
// Error(bad_data).
double read_positive_number(const JsonObject& json, const char* key, double absent);

}  // namespace starattn
