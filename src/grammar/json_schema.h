// SPDX-License-Identifier: Apache-2.0
// JSON schemas (json-schema.org, 2020-12), as far as an answer can be held to them while it is
// written: docs/structured-output.md has the keywords. Each text of the expression is JSON that the
// schema accepts; not every such JSON is a text of it, because members stand in the schema's order
// and those that it does not name are not written.
#pragma once

#include <string>
#include <string_view>

#include "grammar/expressions.h"

namespace starattn {

// Throws Error(bad_data) naming `where`, the place in the schema as a JSON pointer, the keyword
// that is not supported or wrong, and what to do.
Expression parse_json_schema(Expressions& in, std::string_view schema, const std::string& where);

}  // namespace starattn
