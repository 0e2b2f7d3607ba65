// SPDX-License-Identifier: Apache-2.0
// Just enough of Jinja to run a chat template as `transformers` does (trim_blocks, lstrip_blocks):
// if, for, set, macro, and jinja_expression.h. Whatever else is there is refused, not guessed.
#pragma once

#include <map>
#include <string>
#include <string_view>

#include "tokenizer/jinja_expression.h"

namespace starattn::jinja {

// What the template writes. Throws NotUnderstood.
std::string render(std::string_view source, std::map<std::string, Json> variables);

}  // namespace starattn::jinja
