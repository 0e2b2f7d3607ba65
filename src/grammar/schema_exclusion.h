// SPDX-License-Identifier: Apache-2.0
// Whether two schemas share no value.
#pragma once

#include "grammar/schema_place.h"

namespace starattn {

// What is certain: types that differ, or values, or those of a member that both have.
bool exclude_each_other(const Schema& schema, const SchemaPlace& a, const SchemaPlace& b);

}  // namespace starattn
